// Clients that are slow, silent, half-open or hostile: each can hurt only itself.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { withBystanders } from "../lib/bystander.mjs";
import { connectAll, unique } from "../lib/client.mjs";
import { request } from "../lib/http.mjs";
import { three } from "../lib/nodes.mjs";
import { Polling, Socket, Tcp, frame } from "../lib/raw.mjs";

const [first] = three;

describe("hostile clients", () => {
  withBystanders(three);

  test("JSON that is nested without end closes its sender's connection", async (t) => {
    const bomb = "[".repeat(500_000);
    for (const text of [`42["echo",${bomb}`, `40${'{"a":'.repeat(100_000)}`, `430${bomb}`]) {
      const socket = await (text.startsWith("40") ? Socket.open(t, first) : Socket.join(t, first));
      socket.send(text);
      await socket.end();
    }
    const session = await Polling.join(first);
    await session.post(`42["echo",${bomb}`).catch(() => {});
    await session.ended();
  });

  test("JSON that is nested deeply but well is answered or refused, and kills nobody", async (t) => {
    for (const [open, close] of [["[", "]"], ['{"a":', "}"]]) {
      const depth = 100_000;
      const socket = await Socket.join(t, first);
      socket.send(`421["bcast",${open.repeat(depth)}1${close.repeat(depth)}]`);
      // Whether so deep a value passes is the node's choice: either the ack comes or the end.
      await Promise.any([socket.end(), socket.take(1)]);
      const wide = await Socket.join(t, first);
      wide.send(`421["echo",[${"[],".repeat(200_000)}[]]]`);
      await wide.take(1);
    }
  });

  test("a moderately deep value travels unchanged", async (t) => {
    const socket = await Socket.join(t, first);
    const deep = "[".repeat(100) + "]".repeat(100);
    socket.send(`421["echo",${deep}]`);
    assert.deepEqual(await socket.take(1), [`431[${deep}]`]);
  });

  test("a client that reads nothing delays nobody, and everyone else gets everything", async (t) => {
    const slow = await Tcp.webSocket(t, first);
    slow.write(frame("40"));
    await slow.until("its CONNECT", () => slow.received.includes('40{"sid"'));
    slow.socket.pause();
    const clients = await connectAll(t, three);
    const tag = unique("flood");
    const filler = "x".repeat(50_000);
    // Far more than the kernel's buffers hold for the slow one.
    for (let n = 0; n < 400; n += 1) {
      await flood(clients[n % 3], { tag, n, filler });
    }
    for (const client of clients) {
      const got = await client.expectTagged(tag, 400);
      for (const sender of [0, 1, 2]) {
        const own = got.map((data) => data.n).filter((n) => n % 3 === sender);
        assert.deepEqual(own, Array.from({ length: own.length }, (_, index) => index * 3 + sender));
      }
    }
  });

  test("a client that never polls again delays nobody", async (t) => {
    const idle = await Polling.join(first);
    const clients = await connectAll(t, three);
    const tag = unique("flood");
    const filler = "x".repeat(50_000);
    for (let n = 0; n < 200; n += 1) {
      await flood(clients[0], { tag, n, filler });
    }
    for (const client of clients) await client.expectTagged(tag, 200);
    assert.ok(idle.sid);
  });

  test("a client that sends without ever reading its acks hurts nobody", async (t) => {
    const greedy = await Tcp.webSocket(t, first);
    greedy.write(frame("40"));
    greedy.socket.pause();
    const filler = "x".repeat(10_000);
    const [client] = await connectAll(t, [first]);
    for (let n = 0; n < 1000; n += 1) {
      if (greedy.socket.writableLength < 1_000_000) greedy.write(frame(`42${n}["echo","${filler}"]`));
      if (n % 50 === 0) assert.deepEqual(await client.ask("echo", n), [n]);
    }
  });

  test("half-open connections at each stage are no obstacle", async (t) => {
    const host = new URL(first.url).host;
    const stages = [
      "",
      "GET /socket.io/?EIO=4&transport=poll",
      `GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: ${host}\r\n`,
      `POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 10\r\n\r\n`,
      `GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\n`,
    ];
    for (let round = 0; round < 20; round += 1) {
      for (const stage of stages) new Tcp(t, first.url).write(stage);
    }
    for (let round = 0; round < 10; round += 1) {
      const tcp = await Tcp.webSocket(t, first);
      tcp.write(frame("40"));
      tcp.write(frame('42["echo","never finished"]').subarray(0, 5 + round));
    }
    const session = await Polling.join(first);
    await session.works();
  });

  test("garbage on the client port is answered with an error or the end", async (t) => {
    const clientHello = Buffer.from("16030100a5010000a10303", "hex");
    const http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const samples = [clientHello, http2, "\r\n\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0".repeat(1000)];
    samples.push(...Array.from({ length: 20 }, () => Buffer.concat([randomBytes(500), Buffer.from("\r\n\r\n")])));
    for (const sample of samples) {
      const tcp = new Tcp(t, first.url);
      tcp.write(sample);
      tcp.socket.end();
      await tcp.end();
      if (tcp.received.length > 0) assert.doesNotMatch(tcp.received.toString("latin1"), /^HTTP\/1\.[01] 2/);
    }
  });

  test("garbage after a WebSocket handshake ends that connection only", async (t) => {
    for (let round = 0; round < 30; round += 1) {
      const tcp = await Tcp.webSocket(t, first);
      // A first byte with reserved bits set: no frame may start so.
      tcp.write(Buffer.concat([Buffer.from([0xf3]), randomBytes(200)]));
      await tcp.end();
    }
  });

  test("random text in every envelope ends or is ignored, and the node goes on", async (t) => {
    const alphabet = '0123456789[]{}",:-/b_placeholdernum \u001e\u0000ü';
    const text = (length) => Array.from(randomBytes(length), (byte) => alphabet[byte % alphabet.length]).join("");
    for (let round = 0; round < 60; round += 1) {
      const socket = await Socket.join(t, first);
      socket.send(`4${text(1 + round)}`, text(1 + round), randomBytes(round));
      socket.ws.close();
      const session = await Polling.open(first);
      await session.post(`4${text(1 + round)}`).catch(() => {});
    }
  });

  test("requests with absurd heads are refused", async () => {
    const longQuery = await request(first, { query: `EIO=4&transport=polling&x=${"y".repeat(100_000)}` }).catch((error) => error);
    assert.ok(!longQuery.status || longQuery.status >= 400, `${longQuery.status}`);
    const bigHeader = await request(first, { query: "EIO=4&transport=polling", headers: { "x-big": "y".repeat(1_000_000) } }).catch((error) => error);
    assert.ok(!bigHeader.status || bigHeader.status >= 400, `${bigHeader.status}`);
  });

  test("connections that open and vanish by the hundred leave the node serving", async (t) => {
    for (let round = 0; round < 5; round += 1) {
      const sockets = await Promise.all(Array.from({ length: 40 }, () => Socket.join(t, first)));
      sockets.forEach((socket) => socket.ws.terminate());
    }
    const socket = await Socket.join(t, first);
    await socket.works();
  });
});

/** Sends to everyone, and waits for each twentieth to be agreed: of a slow cluster no queue shall be full. */
async function flood(client, data) {
  if (data.n % 20 === 19) await client.done("bcast", data);
  else client.emit("bcast", data);
}
