// The heartbeat of Engine.IO 3, in which the client pings.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { LEGACY_MODES, connectLegacy } from "../lib/legacy.mjs";
import { three } from "../lib/nodes.mjs";
import { Socket } from "../lib/raw.mjs";

const [first] = three;
/** Allowed on top of an exact time, for a machine that is busy with everything else. */
const SLACK = 3000;

describe("heartbeat of generation 2", () => {
  for (const [mode, options] of Object.entries(LEGACY_MODES)) {
    test(`an unmodified client lives on, ${mode}`, async (t) => {
      const client = await connectLegacy(t, first, options);
      let pongs = 0;
      client.socket.io.engine.on("pong", () => (pongs += 1));
      // Each comes after an interval; without them the server would have given up at the third.
      await client.until("five answers to pings", () => pongs >= 5);
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
    await socket.end();
    const lived = performance.now() - started;
    assert.ok(lived > pingInterval + pingTimeout - 100, `closed after ${lived} ms`);
    assert.ok(lived < pingInterval + pingTimeout + SLACK, `closed after ${lived} ms`);
    assert.deepEqual(socket.frames, []);
  });
});
