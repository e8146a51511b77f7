// The routes dialect seen by official clients, one on each of three nodes (cluster-tests/src/dialects/routes.rs).

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect, connectAll, dial, unique } from "../lib/client.mjs";
import { connectLegacy } from "../lib/legacy.mjs";
import { three } from "../lib/nodes.mjs";

const NAMESPACE = { namespace: "/routes" };

/** Keeps every event that comes, by name, in the order in which it came. */
function listen(client) {
  client.heard = [];
  client.socket.onAny((event, ...args) => client.heard.push([event, ...args]));
  return client;
}

async function listeners(t, options = {}) {
  return (await connectAll(t, three, { ...NAMESPACE, ...options })).map(listen);
}

function heard(client, ...expected) {
  return client.until(JSON.stringify(expected), () => client.heard.some((event) => JSON.stringify(event) === JSON.stringify(expected)));
}

/** Everyone has what was sent before, and has heard nothing but `expected`. */
async function heardOnly(sender, clients, expected) {
  const last = unique("last");
  await sender.done("news", last);
  for (const [place, client] of clients.entries()) {
    await heard(client, "news", "for all", last);
    const others = client.heard.filter(([event, , tag]) => event !== "news" || tag !== last);
    assert.deepEqual(others, expected[place], `at ${client.where}`);
  }
}

for (const transports of [["polling"], ["websocket"]]) {
  describe(`routes by ${transports}`, () => {
    test("a route hears the first argument, emits several, and answers the ack with several", async (t) => {
      const [ann] = await listeners(t, { transports });
      assert.deepEqual(await ann.ask("echo", { n: 1 }, "not seen"), [{ n: 1 }, "echo"]);
      assert.deepEqual(await ann.ask("echo"), [null, "echo"]);
      assert.deepEqual(await ann.ask("echo", Buffer.from([1, 2, 3])), [Buffer.from([1, 2, 3]), "echo"]);
      ann.emit("ready");
      await heard(ann, "talk", "several", { arguments: true });
    });

    test("broadcasts reach the clients of all nodes, with or without the sender", async (t) => {
      const clients = await listeners(t, { transports });
      const tag = unique("tag");
      await clients[1].done("shout", tag);
      await clients[2].done("news", tag);
      const news = ["news", "for all", tag];
      const shouted = ["shouted", tag];
      await heardOnly(clients[0], clients, [[shouted, news], [news], [shouted, news]]);
    });

    test("rooms span the nodes", async (t) => {
      const clients = await listeners(t, { transports });
      const room = unique("room");
      await clients[0].done("rooms:join", room);
      await clients[1].done("rooms:join", room);
      await clients[0].done("rooms:tell", room);
      await clients[2].done("rooms:tell all", room);
      await clients[1].done("rooms:leave", room);
      await clients[2].done("rooms:tell", room);
      const [butMe, all] = [["told", "but me", room], ["told", "all", room]];
      await heardOnly(clients[2], clients, [[all, butMe], [butMe, all], []]);
    });
  });
}

describe("routes", () => {
  test("forwarded requests keep data and ack; missing routes and circles are errors", async (t) => {
    const ann = await connect(t, three[0], NAMESPACE);
    assert.deepEqual(await ann.ask("forward:on", 1), [1, "echo"]);
    assert.deepEqual(await ann.ask("forward:nested", 2), [2, "echo"]);
    assert.deepEqual(await ann.ask("forward:nowhere"), [{ error: { message: 'there is no route "nowhere"' } }]);
    const [{ error }] = await ann.ask("forward:circle");
    assert.match(error.message, /^forwarded more than 16 times/);
  });

  test("a route that fails or panics answers, and the node serves on", async (t) => {
    const [ann, bob] = [await connect(t, three[0], NAMESPACE), await connect(t, three[0], NAMESPACE)];
    assert.deepEqual(await ann.ask("fails", "sold out"), [{ error: { message: "sold out" } }]);
    assert.deepEqual(await ann.ask("fails", "panic"), [{ error: { message: "internal error" } }]);
    const [{ error }] = await ann.ask("fails", { not: "text" });
    assert.match(error.message, /^data has another shape: invalid type: map/);
    ann.emit("fails", "panic");
    assert.deepEqual(await bob.ask("echo", 1), [1, "echo"]);
    assert.deepEqual(ann.disconnects, []);
  });

  test("a request knows session, cookies, headers and handshake", async (t) => {
    const extraHeaders = { cookie: "a=b; taste=sweet%21", "x-agent": "suite" };
    const ann = await connect(t, three[1], { ...NAMESPACE, extraHeaders, query: { lang: "de" } });
    const [first] = await ann.ask("who");
    assert.deepEqual(first, { id: ann.id, name: null, visits: 1, taste: "sweet!", agent: "suite", query: "de" });
    const [second] = await ann.ask("who");
    assert.equal(second.visits, 2);
  });

  test("a socket has values and a route of its own; a route added later is there for all", async (t) => {
    const [ann, bob] = [await connect(t, three[0], NAMESPACE), await connect(t, three[0], NAMESPACE)];
    await ann.done("own:set", "one");
    await ann.done("own:set", "two");
    assert.deepEqual(await ann.ask("own"), ["two"]);
    assert.equal((await ann.ask("who"))[0].name, "two");
    await bob.done("add");
    assert.deepEqual(await ann.ask("added"), ["late"]);
  });

  test("who is banned is told so; who is booted is disconnected", async (t) => {
    const banned = dial(t, three[2], { ...NAMESPACE, auth: { banned: true }, reconnection: false });
    await banned.until("a refusal", () => banned.refusals.length > 0);
    assert.deepEqual(banned.refusals, ["banned"]);
    const ann = await connect(t, three[2], { ...NAMESPACE, reconnection: false });
    ann.emit("boot");
    await ann.until("the end", () => ann.disconnects.length > 0);
    assert.deepEqual(ann.disconnects, ["io server disconnect"]);
  });

  test("clients of Socket.IO 2 have the same routes", async (t) => {
    const older = await connectLegacy(t, three[0], NAMESPACE);
    const newer = listen(await connect(t, three[1], NAMESPACE));
    assert.deepEqual(await older.ask("echo", { n: 1 }), [{ n: 1 }, "echo"]);
    const tag = unique("tag");
    await older.done("shout", tag);
    await heard(newer, "shouted", tag);
  });
});
