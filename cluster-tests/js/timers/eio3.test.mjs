// The heartbeat of Engine.IO 3, in which the client pings.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { LEGACY_MODES, connectLegacy } from "../lib/legacy.mjs";
import { three } from "../lib/nodes.mjs";
import { Socket } from "../lib/raw.mjs";
import { EARLY, PING_INTERVAL, SILENCE } from "./times.mjs";

const [first] = three;
/** Each comes after an interval: without its pings, a client that has so many would have been given up. */
const ANSWERS = Math.ceil(SILENCE / PING_INTERVAL) + 2;

// The tests wait for times to pass, and do so together.
describe("heartbeat of generation 2", { concurrency: true }, () => {
  for (const [mode, options] of Object.entries(LEGACY_MODES)) {
    test(`an unmodified client lives on, ${mode}`, async (t) => {
      const client = await connectLegacy(t, first, options);
      let pongs = 0;
      client.socket.io.engine.on("pong", () => (pongs += 1));
      await client.until(`${ANSWERS} answers to pings`, () => pongs >= ANSWERS);
      assert.deepEqual(client.disconnects, []);
      assert.deepEqual(await client.ask("echo", 1), [1]);
    });
  }

  test("a client that does not ping is closed after interval and timeout, and is never pinged", async (t) => {
    const started = performance.now();
    const socket = new Socket(first, "EIO=3&transport=websocket", { silent: true });
    t.after(() => socket.ws.terminate());
    const [open, connected] = await socket.take(2);
    assert.equal(connected, "40");
    const { pingInterval, pingTimeout } = JSON.parse(open.slice(1));
    assert.equal(pingInterval + pingTimeout, SILENCE);
    await socket.end();
    const lived = performance.now() - started;
    assert.ok(lived > SILENCE - EARLY, `closed after ${lived} ms`);
    assert.deepEqual(socket.frames, []);
  });
});
