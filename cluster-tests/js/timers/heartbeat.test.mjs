// What passing time does: heartbeats, silent clients, unfinished upgrades, clients that never connect.
//
// The cluster is started with `settings.sh`, which makes the times short. Most tests wait for one to pass, so those of
// a suite do it together.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, connect } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { Polling, Socket, Tcp, frame } from "../lib/raw.mjs";
import { until } from "../lib/until.mjs";
import { CONNECT_TIMEOUT, EARLY, PING_INTERVAL, PING_TIMEOUT, SILENCE } from "./times.mjs";

const [first, second] = three;
const together = { concurrency: true };

test("the cluster was started with the short times of this folder", async () => {
  const { handshake } = await Polling.open(first);
  assert.deepEqual([handshake.pingInterval, handshake.pingTimeout], [PING_INTERVAL, PING_TIMEOUT]);
});

describe("heartbeat by websocket", together, () => {
  test("the server pings at its interval for as long as it is answered", async (t) => {
    const socket = await Socket.join(t, first);
    socket.silent = true;
    let last = performance.now();
    for (let beat = 0; beat < 6; beat += 1) {
      assert.deepEqual(await socket.take(1), ["2"]);
      const gap = performance.now() - last;
      last = performance.now();
      if (beat > 0) assert.ok(gap > PING_INTERVAL / 2, `pings ${gap} ms apart`);
      socket.send("3");
    }
    await socket.works();
  });

  test("a client that does not answer is closed after interval and timeout, not before", async (t) => {
    const started = performance.now();
    const socket = await Socket.join(t, first);
    socket.silent = true;
    await socket.end();
    const lived = performance.now() - started;
    assert.ok(lived > SILENCE - EARLY, `closed after ${lived} ms`);
    assert.deepEqual(socket.frames, ["2"]);
  });

  test("a silent client's socket leaves its rooms on every node", async (t) => {
    const witness = await connect(t, second);
    const socket = await Socket.join(t, first);
    await until("it to be listed", async () => (await witness.ask("who", socket.id))[0].length === 1);
    socket.silent = true;
    await until("it to be gone", async () => (await witness.ask("who", socket.id))[0].length === 0);
  });

  test("a half-open connection, whose other end has frozen, is given up", async (t) => {
    const [ping, close] = [Buffer.from([0x81, 1, 0x32]), Buffer.from([0x88])];
    const tcp = await Tcp.webSocket(t, first);
    tcp.write(frame("40"));
    await tcp.until("its CONNECT and a ping", () => tcp.received.includes('40{"sid"') && tcp.received.includes(ping));
    // The frozen end answers no close frame either; that the node sends one, or cuts, shows that it gave up.
    await tcp.until("the end", () => tcp.ended || tcp.received.includes(close));
  });

  test("a close packet ends the session", async (t) => {
    const socket = await Socket.join(t, first);
    // A node may end the connection at once; the official server lets it run into the ping timeout.
    socket.ws.removeAllListeners("message");
    socket.send("1");
    await socket.end();
  });
});

describe("heartbeat by polling", together, () => {
  test("pings come to the pending GET for as long as they are answered", async () => {
    const session = await Polling.join(first);
    for (let beat = 0; beat < 4; beat += 1) {
      const polled = await session.get();
      assert.deepEqual([polled.status, polled.text], [200, "2"]);
      assert.equal((await session.post("3")).text, "ok");
    }
  });

  test("a client that neither polls nor answers is forgotten after interval and timeout", async (t) => {
    const witness = await connect(t, first);
    const started = performance.now();
    const session = await Polling.join(first);
    // The wait must not touch the session, or it would be no silence.
    await until("its socket to be gone", async () => (await witness.ask("who", session.id))[0].length === 0);
    const lived = performance.now() - started;
    assert.ok(lived > SILENCE - EARLY, `gone after ${lived} ms`);
    await session.gone();
  });

  test("a GET that is pending when the client is given up is answered", async () => {
    const session = await Polling.join(first);
    assert.equal((await session.get()).text, "2");
    const last = await session.get();
    assert.equal(last.status, 200);
    await session.gone();
  });
});

describe("limits in time", together, () => {
  test("a client that answers pings but never connects is closed after the connect timeout", async (t) => {
    const started = performance.now();
    const socket = await Socket.open(t, first);
    await socket.end();
    const lived = performance.now() - started;
    assert.ok(lived > CONNECT_TIMEOUT - EARLY, `closed after ${lived} ms`);
  });

  test("a client that was only ever refused is closed after the connect timeout", async (t) => {
    const socket = await Socket.open(t, first);
    socket.send("40/nowhere,");
    assert.deepEqual(await socket.take(1), ['44/nowhere,{"message":"Invalid namespace"}']);
    await socket.end();
  });

  test("a client that connected in time stays", async (t) => {
    const socket = await Socket.join(t, first);
    const started = performance.now();
    await until("well more than the connect timeout", () => performance.now() - started > CONNECT_TIMEOUT + 1000);
    await socket.works();
  });

  for (const [what, frames] of [["has not probed", []], ["has probed", ["2probe"]]]) {
    test(`a WebSocket that ${what} and does not finish its upgrade is closed, and the session goes on by polling`, async (t) => {
      const session = await Polling.join(first);
      const socket = await Socket.upgrade(t, session);
      socket.send(...frames);
      const stop = new AbortController();
      const alive = keepAlive(session, stop.signal);
      await socket.end();
      stop.abort();
      await alive;
      await session.works();
    });
  }
});

describe("official clients outlive many heartbeats", together, () => {
  for (const [mode, transports] of Object.entries(MODES)) {
    test(mode, async (t) => {
      const client = await connect(t, first, { transports });
      let pings = 0;
      client.socket.io.on("ping", () => (pings += 1));
      await client.until("five pings", () => pings >= 5);
      assert.deepEqual(await client.ask("echo", 1), [1]);
      assert.deepEqual(client.disconnects, []);
    });
  }
});

/** Polls and answers pings, as a client does, until told to stop. */
async function keepAlive(session, signal) {
  while (!signal.aborted) {
    const { status, text } = await session.get();
    assert.equal(status, 200, text);
    if (text.split("\x1e").includes("2")) await session.post("3");
  }
}
