// Several namespaces on one connection, each with its own ids, rooms and end.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, connect, connectAll, fence, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { until } from "../lib/until.mjs";

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`namespaces, ${mode}`, () => {
    test("two namespaces share one connection and have ids of their own", async (t) => {
      const main = await connect(t, three[0], { transports });
      const direct = main.namespace("/relay-direct");
      await direct.connected();
      assert.equal(direct.socket.io, main.socket.io);
      assert.notEqual(direct.id, main.id);
      const answers = await Promise.all([main.ask("echo", "main"), direct.ask("echo", Buffer.from("direct"))]);
      assert.deepEqual(answers, [["main"], [Buffer.from("direct")]]);
    });

    test("a namespace's broadcasts and rooms stay inside it", async (t) => {
      const [main, far] = await connectAll(t, [three[0], three[1]], { transports });
      const inner = main.namespace("/relay-direct");
      const farInner = far.namespace("/relay-direct");
      await Promise.all([inner.connected(), farInner.connected()]);
      const room = unique("room");
      await main.done("join", room);
      await inner.done("join", room);

      far.emit("room", room, { tag: room, to: "/" });
      await main.expectTagged(room, 1);
      await fence(far, [main, far]);
      assert.deepEqual(main.tagged(room), [{ tag: room, to: "/" }]);
      assert.deepEqual(inner.tagged(room), []);
      assert.deepEqual((await far.ask("who", room))[0], [main.id]);
      await until("the direct namespace's room at the other node", async () => {
        const [ids] = await farInner.ask("who", room);
        return ids.length === 1 && ids[0] === inner.id;
      });
    });

    test("leaving one namespace leaves the other, and the connection, alone", async (t) => {
      const main = await connect(t, three[2], { transports });
      const direct = main.namespace("/relay-direct");
      await direct.connected();
      const left = direct.id;
      direct.socket.disconnect();
      assert.deepEqual(direct.disconnects, ["io client disconnect"]);
      assert.deepEqual(await main.ask("echo", "still here"), ["still here"]);
      assert.deepEqual(main.disconnects, []);

      direct.socket.connect();
      await direct.connected();
      assert.notEqual(direct.id, left);
      assert.deepEqual(await direct.ask("echo", "again"), ["again"]);
    });

    test("a namespace can be used without the main one", async (t) => {
      const direct = await connect(t, three[1], { transports, namespace: "/relay-direct" });
      assert.deepEqual(await direct.ask("echo", 1), [1]);
    });
  });
}
