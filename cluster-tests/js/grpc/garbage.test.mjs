// Garbage on the port that the nodes speak to each other by: it harms neither clients nor the cluster.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { withBystanders } from "../lib/bystander.mjs";
import { connectAll, fence, unique } from "../lib/client.mjs";
import { nodes, three } from "../lib/nodes.mjs";
import { Tcp } from "../lib/raw.mjs";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);

/** One HTTP/2 frame. */
function http2Frame(type, payload, stream = 1) {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const SAMPLES = {
  "random bytes": randomBytes(10_000),
  "HTTP/1.1": Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
  "a TLS greeting": Buffer.from("16030100a5010000a10303", "hex"),
  "a preface and random bytes": Buffer.concat([PREFACE, randomBytes(10_000)]),
  "headers that do not decode": Buffer.concat([PREFACE, SETTINGS, http2Frame(1, randomBytes(200))]),
  "data for a stream that nobody opened": Buffer.concat([PREFACE, SETTINGS, http2Frame(0, randomBytes(200), 7)]),
  "nothing at all": Buffer.alloc(0),
  "half a preface": PREFACE.subarray(0, 10),
};

describe("garbage on the gRPC port", () => {
  withBystanders(three);

  for (const [name, bytes] of Object.entries(SAMPLES)) {
    test(name, async (t) => {
      const target = nodes.map((node) => `http://${node.grpc}`);
      assert.ok(nodes.every((node) => node.grpc), "nodes.json names no gRPC port");
      for (const url of target) {
        const tcp = new Tcp(t, url);
        tcp.write(bytes);
        tcp.socket.end();
        await tcp.end();
        // And one more that stays open, to be in the way for the rest of the test.
        new Tcp(t, url).write(bytes);
      }
      const clients = await connectAll(t, three);
      const room = unique("room");
      await Promise.all(clients.map((client) => client.done("join", room)));
      clients[0].emit("room", room, { tag: room });
      await fence(clients[0], clients);
      for (const client of clients) assert.equal(client.tagged(room).length, 1);
    });
  }
});
