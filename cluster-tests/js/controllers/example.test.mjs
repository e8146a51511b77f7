// LoopBack's example on three nodes (node/examples/controllers.rs): channels, messages, and the page.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connectAll, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { twoPages } from "../lib/pages.mjs";

async function clients(t) {
  const all = await connectAll(t, three);
  for (const client of all) {
    client.heard = [];
    client.socket.onAny((event, ...args) => client.heard.push(JSON.stringify([event, ...args])));
  }
  return all;
}

function heard(client, ...event) {
  return client.until(JSON.stringify(event), () => client.heard.includes(JSON.stringify(event)));
}

describe("LoopBack's example", () => {
  test("a general message reaches its channels and sockets on every node", async (t) => {
    const [ann, bob, cid] = await clients(t);
    const channel = unique("channel");
    assert.deepEqual(await ann.ask("subscribe-to-channel", [channel]), [{ result: [channel] }]);
    const receiver = { to: [{ id: channel }, { id: bob.id }] };
    const message = { subject: "s", body: { text: "b" }, receiver, options: { o: 1 } };
    assert.deepEqual(await cid.ask("general-message", JSON.stringify(message)), [{ result: 2 }]);
    const sent = { subject: "s", body: { text: "b" }, options: { o: 1 } };
    await Promise.all([heard(ann, "message", sent), heard(bob, "message", sent)]);
    assert.ok(!cid.heard.includes(JSON.stringify(["message", sent])));
  });

  test("a forwarded message reaches everyone as it came", async (t) => {
    const all = await clients(t);
    const tag = unique("tag");
    assert.deepEqual(await all[0].ask("general-message-forward", { tag }, 2), [{}]);
    for (const client of all) await heard(client, "general-message-forward", { tag }, 2);
  });

  test("what is no list of channels, or no message, is an error to its sender", async (t) => {
    const [ann] = await clients(t);
    const [{ error: list }] = await ann.ask("subscribe-to-channel", "no list");
    assert.equal(list.code, "INVALID_ARGUMENT");
    const [{ error: name }] = await ann.ask("subscribe-to-channel", [""]);
    assert.deepEqual(name, { message: "a channel has a name", code: "E_CHANNEL" });
    const [{ error: message }] = await ann.ask("general-message", "{");
    assert.match(message.message, /EOF while parsing/);
    assert.deepEqual(await ann.ask("only the log sees it"), [{}]);
  });
});

describe("the page", () => {
  const open = twoPages();

  test("pages on two nodes hear each other", async (t) => {
    const { one, two, errors } = await open(t);
    await Promise.all([one.goto(three[0].url), two.goto(three[1].url)]);
    const line = (page, text) => page.locator("li", { hasText: text }).first().waitFor();
    for (const page of [one, two]) await page.locator("#state", { hasText: "connected" }).waitFor();
    const press = (page, name) => page.getByRole("button", { name, exact: true }).click();

    await press(two, "subscribe to channel");
    await line(two, '→ subscribe-to-channel: [{"result":["news"]}]');
    await press(one, "to the channel");
    await line(two, '← message [{"subject":"from the page","body":"hello","options":{}}]');
    await press(one, "to everyone");
    await line(two, '← general-message-forward [{"body":"hello"}]');
    await line(one, "→ general-message-forward: [{}]");
    assert.deepEqual(errors, []);
  });
});
