// The page of the server half of api.io's README (node/examples/api.rs), on three nodes.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { three } from "../lib/nodes.mjs";
import { twoPages } from "../lib/pages.mjs";

describe("the page", () => {
  const open = twoPages();

  test("what a page of one node announces, the subscriptions of another node's page get", async (t) => {
    const { one, two, errors } = await open(t);
    await Promise.all([one.goto(three[0].url), two.goto(three[1].url)]);
    const logged = (page, text) => page.locator("#log", { hasText: text }).waitFor();
    for (const page of [one, two]) await page.locator("#status", { hasText: "connected" }).waitFor();
    await logged(two, "myApi.VALUE is const");

    await one.locator("#sum").click();
    await logged(one, "myApi.sum = 3");
    // What one page does is agreed in its order: when this is, so are its subscriptions.
    await two.locator("#send").click();
    await logged(two, 'myApi.event4 → {"value":7}');
    await one.locator("#announce").click();
    for (const text of ['myApi.event1 → "Hello World!"', 'myApi.event2 → "Hello, guest!"', 'myApi.event3#1 → {"value":5}']) {
      await logged(two, text);
    }
    const text = await two.locator("#log").textContent();
    assert.ok(!text.includes('{"value":3}'), "its query is for 4 and more");

    const definitions = await (await fetch(`${three[2].url}/api.io/definitions.json`)).json();
    assert.deepEqual(definitions.myApi.sum, { type: "function", value: ["a", "b"] });
    assert.deepEqual(errors, []);
  });
});
