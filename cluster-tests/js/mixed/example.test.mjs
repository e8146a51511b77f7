// The dialects beside one another on three nodes (node/examples/mixed.rs): sockets, HTTP, and the page.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { connect, connectAll } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { twoPages } from "../lib/pages.mjs";
import { until } from "../lib/until.mjs";

const none = { tea: 0, coffee: 0, mate: 0 };

describe("one poll, in all dialects", () => {
  test("votes of every node count, for subscribers, routes and HTTP", async (t) => {
    const voters = await connectAll(t, three);
    const [ann, bob, cid] = voters;
    const changes = [];
    cid.socket.on("poll.changed", (tally) => changes.push(tally));
    cid.emit("_subscribeToEvent", "poll.changed", false);
    // Its node may hear of the others a moment later.
    await cid.until("three voters", async () => (await cid.ask("voters"))[0] === 3);
    // What one socket does is agreed in its order: when this is, so is the subscription.
    assert.deepEqual(await cid.ask("poll.vote", { option: "coffee" }), [null, { ...none, coffee: 1 }]);
    assert.deepEqual(await ann.ask("poll.vote", { option: "tea" }), [null, { tea: 1, coffee: 1, mate: 0 }]);
    assert.deepEqual(await bob.ask("poll.vote", { option: "tea" }), [null, { tea: 2, coffee: 1, mate: 0 }]);
    assert.deepEqual(await ann.ask("poll.vote", { option: "mate" }), [null, { tea: 1, coffee: 1, mate: 1 }]);
    const [{ message }] = await ann.ask("poll.vote", { option: "beer" });
    assert.match(message, /"beer" is none of/);
    await cid.until("four changes", () => changes.length === 4);
    assert.deepEqual(changes.at(-1), { tea: 1, coffee: 1, mate: 1 });
    assert.deepEqual(await cid.ask("poll:read"), [{ tea: 1, coffee: 1, mate: 1 }]);
    await until("the tally at another node", async () => {
      const response = await fetch(`${three[1].url}/api/poll`);
      assert.equal(response.status, 200);
      return isDeepStrictEqual(await response.json(), { tea: 1, coffee: 1, mate: 1 });
    });

    const desk = await connect(t, three[2], { namespace: "/desk" });
    const restarts = voters.map((voter) => new Promise((resolve) => voter.socket.once("restarted", resolve)));
    assert.deepEqual(await desk.ask("restart"), [{ result: none }]);
    await Promise.all(restarts);
    assert.deepEqual(await bob.ask("poll:read"), [none]);
  });
});

describe("the page", () => {
  const open = twoPages();

  test("pages on two nodes are one poll", async (t) => {
    const { one, two, errors } = await open(t);
    await Promise.all([one.goto(three[0].url), two.goto(three[1].url)]);
    const line = (page, text) => page.locator("li", { hasText: text }).first().waitFor();
    for (const page of [one, two]) await page.locator("#state", { hasText: "connected" }).waitFor();
    const press = (page, name) => page.getByRole("button", { name, exact: true }).click();

    // Its node may hear a moment later of who has come and gone.
    const lines = (text) => two.locator("li", { hasText: text }).count();
    await until("two voters", async () => {
      const before = await lines("→ voters:");
      await press(two, "voters");
      await until("an answer", async () => (await lines("→ voters:")) > before);
      return lines("→ voters: [2]");
    });
    // What one page does is agreed in its order: when this is, so is its subscription.
    await press(two, "coffee");
    await line(two, '→ poll.vote: [null,{"tea":0,"coffee":1,"mate":0}]');
    await press(one, "tea");
    await line(one, '→ poll.vote: [null,{"tea":1,"coffee":1,"mate":0}]');
    await line(two, '← poll.changed [{"tea":1,"coffee":1,"mate":0}]');
    await press(one, "say hello");
    await line(two, '← said ["hello"]');
    await press(two, "GET /api/poll");
    await line(two, '→ GET /api/poll: 200 {"tea":1,"coffee":1,"mate":0}');
    await press(two, "restart");
    await line(two, '→ restart: [{"result":{"tea":0,"coffee":0,"mate":0}}]');
    await line(one, "← restarted");
    assert.deepEqual(errors, []);
  });
});
