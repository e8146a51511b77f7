// The controllers dialect seen by official clients, one on each of three nodes (cluster-tests/src/dialects/controllers.rs).

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect, connectAll, dial, unique } from "../lib/client.mjs";
import { connectLegacy } from "../lib/legacy.mjs";
import { three } from "../lib/nodes.mjs";

const NAMESPACE = { namespace: "/controllers" };

/** Keeps every event that comes, in the order in which it came. */
function listen(client) {
  client.heard = [];
  client.socket.onAny((...event) => client.heard.push(JSON.stringify(event)));
  return client;
}

function heard(client, ...event) {
  return client.until(JSON.stringify(event), () => client.heard.includes(JSON.stringify(event)));
}

async function listeners(t, options = {}) {
  return (await connectAll(t, three, { ...NAMESPACE, ...options })).map(listen);
}

for (const transports of [["polling"], ["websocket"]]) {
  describe(`controllers by ${transports}`, () => {
    test("values, nothing and errors come in their envelopes", async (t) => {
      for (const client of await listeners(t, { transports })) {
        const value = { got: { a: 1 }, calls: 1, socket: client.id };
        assert.deepEqual(await client.ask("ret", { a: 1 }), [{ result: value }]);
        assert.deepEqual(await client.ask("ret"), [{ result: { ...value, got: null, calls: 2 } }]);
        assert.deepEqual(await client.ask("nothing", "surplus", 1), [{}]);
        assert.deepEqual(await client.ask("fails", "no", "E_X"), [{ error: { message: "no", code: "E_X" } }]);
        assert.deepEqual(await client.ask("fails", "no"), [{ error: { message: "no" } }]);
        const missing = { message: "argument 1 is missing", code: "INVALID_ARGUMENT" };
        assert.deepEqual(await client.ask("fails"), [{ error: missing }]);
        const [{ error }] = await client.ask("fails", { toString: 1 });
        assert.equal(error.code, "INVALID_ARGUMENT");
        const internal = { message: "internal server error", code: "INTERNAL" };
        assert.deepEqual(await client.ask("panic"), [{ error: internal }]);
      }
    });

    test("binary arguments and results are attachments", async (t) => {
      const [client] = await listeners(t, { transports });
      const file = Buffer.from([0, 1, 255]);
      assert.deepEqual(await client.ask("binary", "x", file), [{ result: ["x", 3, file] }]);
    });

    test("what a controller publishes reaches clients of every node", async (t) => {
      const [ann, bob, cid] = await listeners(t, { transports });
      const room = unique("room");
      for (const member of [ann, bob]) assert.deepEqual(await member.ask("join", [room]), [{ result: 1 }]);
      assert.deepEqual(await cid.ask("say", room, "a"), [{}]);
      assert.deepEqual(await ann.ask("shout", room, "b"), [{}]);
      await heard(bob, "shout", "b");
      // Of a socket of an earlier test this node may hear only now that it is gone.
      const first = bob.heard.filter((event) => !event.startsWith('["gone"')).slice(0, 2);
      assert.deepEqual(first, ['["say","a"]', '["shout","b"]']);
      await heard(ann, "say", "a");
      const tag = unique("tag");
      assert.deepEqual(await bob.ask("everyone", tag, { n: 1 }), [{}]);
      for (const client of [ann, bob, cid]) await heard(client, "everyone", tag, { n: 1 });
      assert.ok(!ann.heard.includes('["shout","b"]'));
      assert.ok(!cid.heard.includes('["say","a"]'));
    });

    test("events that arrive while connect handlers run wait for them", async (t) => {
      const slow = { namespace: "/controllers-slow", transports };
      const client = listen(dial(t, three[0], slow));
      await client.connected();
      await heard(client, "waiting");
      const early = Promise.all([1, 2, 3].map((number) => client.ask("early", number)));
      await connect(t, three[0], { ...slow, auth: { opens: true } });
      assert.deepEqual(await early, [1, 2, 3].map((number) => [{ result: [true, number] }]));
    });

    test("a connect handler that fails disconnects the socket with its error", async (t) => {
      for (const node of three) {
        const client = listen(dial(t, node, { ...NAMESPACE, transports, auth: { fail: "not today" } }));
        await heard(client, "exception", { message: "not today", code: "E_CONNECT" });
        await client.until("the disconnect", () => client.disconnects.includes("io server disconnect"));
      }
    });

    test("middleware of a route refuses with its error", async (t) => {
      const client = dial(t, three[1], { ...NAMESPACE, transports, auth: { banned: true } });
      const refused = new Promise((resolve) => client.socket.once("connect_error", resolve));
      const error = await refused;
      assert.deepEqual([error.message, error.data], ["banned", { code: 7 }]);
    });
  });
}

describe("controllers", () => {
  test("an observer of all events takes no ack, and a pattern may give one", async (t) => {
    const [client] = await listeners(t);
    assert.deepEqual(await client.ask("tick:12"), [{ result: "tick:12" }]);
    assert.deepEqual(await client.ask("tick:x"), [{}]);
    assert.deepEqual(await client.ask("ret", 1), [{ result: { got: 1, calls: 1, socket: client.id } }]);
    assert.deepEqual(await client.ask("seen"), [{ result: ["tick:12", "tick:x", "ret", "seen"] }]);
  });

  test("the disconnect and its reason are told, cluster-wide", async (t) => {
    const [ann, bob, cid] = await listeners(t);
    const { id } = bob;
    bob.socket.disconnect();
    for (const client of [ann, cid]) await heard(client, "gone", id, "client namespace disconnect");
    const lost = cid.id;
    cid.socket.io.engine.close();
    await heard(ann, "gone", lost, "transport close");
  });

  test("a pattern binds namespaces as they are asked for, and a route binds another one", async (t) => {
    const number = Math.floor(Math.random() * 1e9);
    const namespace = `/controllers-room-${number}`;
    const [ann, bob] = await listeners(t, { namespace });
    const eve = listen(await connect(t, three[2], { namespace: `/controllers-room-${number + 1}` }));
    assert.deepEqual(await ann.ask("say", "hi"), [{ result: namespace }]);
    await heard(bob, "said", "hi");
    assert.deepEqual(await eve.ask("say", "other"), [{ result: `/controllers-room-${number + 1}` }]);
    assert.deepEqual(eve.heard, ['["said","other"]']);
    const [hall] = await listeners(t, { namespace: "/controllers-hall" });
    assert.deepEqual(await hall.ask("say", "hi"), [{ result: "/controllers-hall" }]);
    const nowhere = dial(t, three[0], { namespace: "/controllers-room-x" });
    await nowhere.until("the refusal", () => nowhere.refusals.includes("Invalid namespace"));
  });

  test("the session is injected", async (t) => {
    const [client] = await listeners(t);
    const [{ result }] = await client.ask("name", "ann");
    assert.equal(result.name, "ann");
  });

  test("clients of Socket.IO 2 are served alike", async (t) => {
    const client = await connectLegacy(t, three[2], NAMESPACE);
    assert.deepEqual(await client.ask("nothing"), [{}]);
    assert.deepEqual(await client.ask("fails", "no"), [{ error: { message: "no" } }]);
  });
});
