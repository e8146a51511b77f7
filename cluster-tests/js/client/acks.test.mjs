// Acks: each goes to its own question, once, and only when it was asked for.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, connect, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`acks, ${mode}`, () => {
    test("a thousand questions at once are answered each with its own", async (t) => {
      const client = await connect(t, three[0], { transports });
      const answers = await Promise.all(Array.from({ length: 1000 }, (_, index) => client.ask("echo", index)));
      assert.deepEqual(answers.flat(), Array.from({ length: 1000 }, (_, index) => index));
    });

    test("an ack is called once", async (t) => {
      const client = await connect(t, three[1], { transports });
      let calls = 0;
      client.socket.emit("echo", "once", () => (calls += 1));
      await client.until("the first ack", () => calls > 0);
      await client.ask("echo", "after");
      assert.equal(calls, 1);
    });

    test("verbs that change something are acked with nothing", async (t) => {
      const client = await connect(t, three[2], { transports });
      const room = unique("room");
      await client.done("join", room);
      await client.done("room", room, { tag: room });
      await client.done("bcast", { tag: room });
      await client.done("dm", client.id, { tag: room });
      await client.done("login", unique("name"));
      await client.done("tell", { username: unique("nobody") }, { tag: room });
      await client.done("leave", room);
      assert.equal(client.tagged(room).length, 3);
    });

    test("verbs work without asking for an ack", async (t) => {
      const client = await connect(t, three[0], { transports });
      const room = unique("room");
      const name = unique("name");
      client.emit("join", room);
      client.emit("login", name);
      client.emit("room", room, { tag: room, by: "room" });
      client.emit("tell", { username: name }, { tag: room, by: "session" });
      const got = await client.expectTagged(room, 2);
      assert.deepEqual(got.map((data) => data.by), ["room", "session"]);
    });

    test("an event that nobody handles is ignored and its ack times out", async (t) => {
      const client = await connect(t, three[1], { transports });
      await assert.rejects(client.socket.timeout(200).emitWithAck("no such verb", 1), /timed out/);
      assert.deepEqual(await client.ask("echo", "alive"), ["alive"]);
      assert.deepEqual(client.disconnects, []);
    });

    test("the ack of an emit comes after what was emitted", async (t) => {
      const client = await connect(t, three[2], { transports });
      for (let round = 0; round < 20; round += 1) {
        const tag = unique("before");
        await client.done("bcast", { tag });
        assert.equal(client.tagged(tag).length, 1, `round ${round}: acked before its message came`);
      }
    });
  });
}
