// Connection state recovery in /recoverable: the official client loses its connection, and comes back to
// whatever node it finds.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, dial, fence, unique } from "../lib/client.mjs";
import { Socket } from "../lib/raw.mjs";
import { three } from "../lib/nodes.mjs";

const NAMESPACE = "/recoverable";

/** A client of the namespace, whose offset is left out of what its inbox holds. */
function receive(client) {
  client.socket.off("msg");
  client.socket.on("msg", (...data) => client.inbox.push(data[0]));
  client.recoveries = [];
  client.ids = [];
  client.socket.on("connect", () => {
    client.recoveries.push(client.socket.recovered);
    client.ids.push(client.id);
  });
  return client;
}

async function recoverable(t, node, options) {
  const client = receive(dial(t, node, { namespace: NAMESPACE, ...options }));
  await client.until("a connection", () => client.ids.length === 1);
  return client;
}

/** Cuts the connection, and has the client come back to another node after `meanwhile`. */
async function cut(client, node, meanwhile = async () => {}) {
  const times = client.ids.length;
  const { io } = client.socket;
  io.reconnection(false);
  // A client that closes while it upgrades does so in the very turn in which packets came: it keeps those for when it
  // is connected again, and does not say that it has them.
  await client.until("its transport", () => io.engine.transport.name === io.opts.transports.at(-1));
  io.engine.close();
  await client.until("the cut", () => !client.socket.connected);
  io.uri = node.url;
  await meanwhile();
  io.reconnection(true);
  client.socket.connect();
  await client.until("another connection", () => client.ids.length > times);
}

/** Joins the namespace with `auth` on a raw socket; the CONNECT's content, and what came before it. */
async function join(socket, auth) {
  socket.send(`40${NAMESPACE},${auth ? JSON.stringify(auth) : ""}`);
  const events = [];
  for (;;) {
    const [packet] = await socket.take(1);
    if (packet.startsWith("40")) return { ...content(packet), events };
    events.push(content(packet));
  }
}

/** The JSON of a packet of the namespace. */
const content = (packet) => JSON.parse(packet.slice(`40${NAMESPACE},`.length));

/** The client is who it was. */
function assertRecovered(client) {
  assert.equal(client.recoveries.at(-1), true);
  assert.equal(client.ids.at(-1), client.ids.at(-2));
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const heard = (client, tag) => client.tagged(tag).map((data) => data.n);

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`recovery, ${mode}`, () => {
    test("id, rooms, session and every missed packet come along to another node", async (t) => {
      const [tag, room, username] = [unique("missed"), unique("room"), unique("name")];
      const client = await recoverable(t, three[0], { transports });
      const other = await recoverable(t, three[1], { transports });
      await client.done("join", room);
      await client.done("login", username);
      await other.done("room", room, { tag, n: 0 });
      await client.expectTagged(tag, 1);
      await cut(client, three[2], async () => {
        await other.done("room", room, { tag, n: 1 });
        await other.done("bcast", { tag, n: 2 });
        await other.done("dm", client.ids[0], { tag, n: 3 });
        await other.done("tell", { username }, { tag, n: 4 });
        await other.done("room", unique("elsewhere"), { tag, n: 99 });
      });
      assertRecovered(client);
      await other.done("room", room, { tag, n: 5 });
      await other.done("tell", { username }, { tag, n: 6 });
      await client.expectTagged(tag, 7);
      assert.deepEqual(heard(client, tag), numbers(7));
      assert.deepEqual(await client.ask("who", room), [[client.ids[0]]]);
    });

    test("a client that has received nothing yet comes back", async (t) => {
      const tag = unique("nothing");
      const client = await recoverable(t, three[0], { transports });
      const other = await recoverable(t, three[1], { transports });
      await cut(client, three[1], () => other.done("dm", client.ids[0], { tag, n: 0 }));
      assertRecovered(client);
      await client.expectTagged(tag, 1);
    });

    test("again and again, from node to node, under traffic, nothing is lost, doubled or out of order", async (t) => {
      const tag = unique("restless");
      const clients = await Promise.all(three.map((node) => recoverable(t, node, { transports })));
      const sender = await recoverable(t, three[0], { transports });
      let [sent, stop] = [0, false];
      const traffic = (async () => {
        while (!stop) {
          sender.emit("bcast", { tag, n: sent++ });
          await new Promise((resolve) => setTimeout(resolve, 2));
        }
      })();
      for (let round = 1; round <= 4; round += 1) {
        await Promise.all(clients.map((client, n) => cut(client, three[(n + round) % 3])));
        clients.forEach(assertRecovered);
      }
      stop = true;
      await traffic;
      await fence(sender, clients);
      for (const client of clients) assert.deepEqual(heard(client, tag), numbers(sent));
    });
  });
}

describe("recovery", () => {
  test("the wire: a pid with CONNECT, and an offset at the end of each event", async (t) => {
    const ws = await Socket.open(t, three[0]);
    const { sid, pid } = await join(ws);
    assert.equal(typeof pid, "string");
    assert.notEqual(pid, sid);
    ws.send(`42${NAMESPACE},0["dm","${sid}",{"a":1}]`);
    const [event, ack] = (await ws.take(2)).sort();
    const [name, data, offset, ...more] = content(event);
    assert.deepEqual([name, data, typeof offset, more.length], ["msg", { a: 1 }, "string", 0]);
    assert.equal(ack, `43${NAMESPACE},0[]`);
  });

  test("missed events come before the CONNECT, as with the official server", async (t) => {
    const first = await Socket.open(t, three[0]);
    const { sid, pid } = await join(first);
    first.ws.terminate();
    const other = await recoverable(t, three[1]);
    const tag = unique("before");
    await other.done("dm", sid, { tag });
    const second = await Socket.open(t, three[2]);
    const back = await join(second, { pid });
    assert.deepEqual([back.sid, back.pid], [sid, pid]);
    assert.deepEqual(back.events.map(([name, data]) => [name, data]), [["msg", { tag }]]);
  });

  test("a half-open connection is taken over, and there is one live socket for each pid", async (t) => {
    const connections = [await Socket.open(t, three[0])];
    const { sid, pid } = await join(connections[0]);
    for (const node of [three[1], three[0], three[0]]) {
      const next = await Socket.open(t, node);
      const back = await join(next, { pid });
      assert.deepEqual([back.sid, back.pid], [sid, pid]);
      // Whoever had it before hears that it has it no more.
      await connections.at(-1).end();
      connections.push(next);
    }
    const other = await recoverable(t, three[2]);
    const tag = unique("one");
    await other.done("dm", sid, { tag });
    const [event] = await connections.at(-1).take(1);
    assert.equal(content(event)[1].tag, tag);
    const [ids] = await other.ask("who", sid);
    assert.deepEqual(ids, [sid]);
  });

  test("forged, foreign and malformed credentials get a new socket, and leave the old one alone", async (t) => {
    const client = await recoverable(t, three[0]);
    const { _pid: pid } = client.socket;
    const forged = [
      { pid: pid.slice(0, 20) + pid.slice(0, 20) },
      { pid, offset: "hello" },
      { pid, offset: "1-2-3" },
      { pid: 7, offset: {} },
      { pid: "x" },
      { offset: "0-0-0" },
    ];
    for (const auth of forged) {
      const { sid, events } = await join(await Socket.open(t, three[1]), auth);
      assert.notEqual(sid, client.id, JSON.stringify(auth));
      assert.deepEqual(events, []);
    }
    await client.done("join", "still here");
    assert.equal(client.ids.length, 1);
  });

  test("who says goodbye does not come back", async (t) => {
    const client = await recoverable(t, three[0]);
    const witness = await recoverable(t, three[1]);
    client.socket.disconnect();
    // Its next connection may be to another node, and there before the goodbye is agreed.
    await witness.until("its goodbye", async () => (await witness.ask("who", client.ids[0]))[0].length === 0);
    client.socket.connect();
    await client.until("another connection", () => client.ids.length === 2);
    assert.equal(client.recoveries.at(-1), false);
    assert.notEqual(client.ids[1], client.ids[0]);
  });

  test("binary comes back as binary", async (t) => {
    const tag = unique("binary");
    const client = await recoverable(t, three[0]);
    const other = await recoverable(t, three[1]);
    const bytes = Buffer.from([1, 2, 255]);
    await cut(client, three[2], () => other.done("dm", client.ids[0], { tag, bytes }));
    assertRecovered(client);
    const [data] = await client.expectTagged(tag, 1);
    assert.deepEqual(Buffer.from(data.bytes), bytes);
  });

  test("other namespaces know nothing of it", async (t) => {
    const ws = await Socket.open(t, three[0]);
    ws.send(`40{"pid":"x","offset":"y"}`);
    const [answer] = await ws.take(1);
    const { sid, ...more } = JSON.parse(answer.slice(2));
    assert.deepEqual(more, {});
    ws.send(`42["dm","${sid}","text"]`);
    assert.deepEqual(await ws.take(1), [`42["msg","text"]`]);
  });
});
