// What travels in MessagePack, beside what the suites of client/ send: JavaScript's own types, and how packets look.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import notepack from "notepack.io";
import WebSocket from "ws";
import { testIf } from "../lib/conditional.mjs";
import { withBystanders } from "../lib/bystander.mjs";
import { MODES, connect, connectAll, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { again, until, within } from "../lib/until.mjs";
import { printVersions } from "../lib/versions.mjs";

printVersions("socket.io-msgpack-parser", "notepack.io");

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`msgpack, ${mode}`, () => {
    test("numbers of every size come back unchanged", async (t) => {
      const client = await connect(t, three[0], { transports });
      const edges = [0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000, 0xffffffff, 0x100000000, Number.MAX_SAFE_INTEGER];
      const values = [...edges, ...edges.map((edge) => -edge - (edge === Number.MAX_SAFE_INTEGER ? 0 : 1)), -0x20, -0x21, 0.1, 1e-300];
      assert.deepEqual(await client.ask("echo", ...values), values);
    });

    test("strings and containers of every size come back unchanged", async (t) => {
      const client = await connect(t, three[1], { transports });
      const sizes = [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536];
      for (const size of sizes) {
        const values = ["x".repeat(size), Array.from({ length: size }, (_, index) => index % 100)];
        if (size <= 256) values.push(Object.fromEntries(values[1].map((_, index) => [`k${index}`, index])));
        assert.deepEqual(await client.ask("echo", ...values), values);
      }
    });

    test("binary of every size arrives at every node in its place", async (t) => {
      const clients = await connectAll(t, three, { transports });
      const tag = unique("binary");
      const parts = [0, 1, 255, 256, 65_535, 65_536].map((size) => Buffer.alloc(size, size & 0xff));
      const sent = { tag, parts, first: parts[1], nested: [[parts[2]]] };
      clients[0].emit("bcast", sent);
      for (const client of clients) assert.deepEqual(await client.expectTagged(tag, 1), [sent]);
    });

    test("more binary values than the default parser allows are no matter", async (t) => {
      const client = await connect(t, three[2], { transports });
      const values = Array.from({ length: 500 }, (_, index) => Buffer.from([index & 0xff]));
      assert.deepEqual(await client.ask("echo", ...values), values);
    });

    // The official server is JavaScript, and hands on what it cannot hold here.
    testIf(process.env.FLOTILLA_REFERENCE === undefined)("what JSON does not know arrives as JSON.stringify would have written it", async (t) => {
      const client = await connect(t, three[0], { transports });
      const date = new Date(1_763_800_000_123);
      const values = [undefined, { gone: undefined, kept: 1 }, date, new Date(-1), NaN, Infinity, [undefined]];
      const written = JSON.parse(JSON.stringify(values));
      assert.deepEqual(await client.ask("echo", ...values), written);
    });

    test("an object that looks like a placeholder is an object", async (t) => {
      const client = await connect(t, three[1], { transports });
      const values = [{ _placeholder: true, num: 0 }];
      assert.deepEqual(await client.ask("echo", ...values), values);
    });
  });
}

describe("packets of msgpack", () => {
  withBystanders(three);

  test("each is one binary message, as the official server writes it", async () => {
    const { socket, received } = await open(three[0]);
    socket.send(notepack.encode({ type: 0, nsp: "/" }));
    await until("CONNECT", () => received.length === 1, () => received);
    assert.deepEqual(Object.keys(received[0]), ["type", "data", "nsp"]);
    assert.equal(received[0].type, 0);
    socket.send(notepack.encode({ type: 2, nsp: "/", id: 4, data: ["echo", Buffer.from([1])], options: {}, extra: [] }));
    await until("the ack", () => received.length === 2, () => received);
    assert.deepEqual(received[1], { type: 3, data: [Buffer.from([1])], id: 4, nsp: "/" });
    socket.send(notepack.encode({ type: 0, nsp: "/none" }));
    await until("CONNECT_ERROR", () => received.length === 3, () => received);
    assert.deepEqual(received[2], { type: 4, data: { message: "Invalid namespace" }, nsp: "/none" });
    socket.terminate();
  });

  /** A message of fewer bytes leaves its client in one piece. */
  const SEGMENT = 1000;
  const header = { type: 2, nsp: "/" };
  const deep = Buffer.concat([Buffer.from("83a47479706502a36e7370a12fa464617461", "hex"), Buffer.alloc(100_000, 0x91)]);
  const VIOLATIONS = {
    "text": '42["echo"]',
    "no MessagePack": Buffer.from([0xc1]),
    "cut short": notepack.encode({ ...header, data: ["echo", "text"] }).subarray(0, -3),
    "trailing bytes": Buffer.concat([notepack.encode({ ...header, data: ["echo"] }), Buffer.from([0])]),
    "a length that nothing follows": Buffer.from("ddffffffff", "hex"),
    "endless nesting": deep,
    "no map": notepack.encode([2, "/", ["echo"]]),
    "an unknown type": notepack.encode({ ...header, type: 5, data: ["echo"] }),
    "a type that is no integer": notepack.encode({ ...header, type: 1.5, data: ["echo"] }),
    "a type that is text": notepack.encode({ ...header, type: "2", data: ["echo"] }),
    "no namespace": notepack.encode({ type: 2, data: ["echo"] }),
    "a namespace that is no text": notepack.encode({ ...header, nsp: 1, data: ["echo"] }),
    "no data": notepack.encode(header),
    "data that is no array": notepack.encode({ ...header, data: { 0: "echo" } }),
    "an id that is no integer": notepack.encode({ ...header, id: 1.5, data: ["echo"] }),
    "an id that is text": notepack.encode({ ...header, id: "1", data: ["echo"] }),
    "a disconnect with data": notepack.encode({ type: 1, nsp: "/", data: null }),
    "a connect whose auth is no object": notepack.encode({ type: 0, nsp: "/more", data: [] }),
  };

  for (const [name, message] of Object.entries(VIOLATIONS)) {
    test(`${name} closes the connection, as by the official server`, async () => {
      const code = await again("a close frame", async () => {
        const { socket, received, closed } = await open(three[1]);
        socket.send(notepack.encode({ type: 0, nsp: "/" }));
        await until("CONNECT", () => received.length === 1, () => received);
        socket.send(message);
        const code = await within("the close", closed, () => received);
        // A server waits only for a while for the rest of a long message: the stream of a slow client may be reset.
        return (message.length < SEGMENT || code !== 1006) && code;
      });
      assert.equal(code, 1005);
    });
  }
});

/** A WebSocket on a node, and what it received, decoded. */
async function open(node) {
  const socket = new WebSocket(`${node.url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`);
  const closed = new Promise((resolve) => socket.once("close", resolve));
  const received = [];
  await within("the open packet", new Promise((resolve) => socket.once("message", resolve)), () => socket.readyState);
  socket.on("message", (data, isBinary) => {
    // A ping is the only text that a server sends here.
    if (isBinary) received.push(notepack.decode(data));
  });
  return { socket, received, closed };
}
