// How connections end, what the client is told, and how it comes back.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, connect, connectAll, fence, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { until } from "../lib/until.mjs";

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`disconnect, ${mode}`, () => {
    test("a client that leaves is told so and does not come back by itself", async (t) => {
      const [client, other] = await connectAll(t, [three[0], three[1]], { transports });
      const { id } = client;
      client.socket.disconnect();
      assert.deepEqual(client.disconnects, ["io client disconnect"]);
      await until("the socket gone", async () => (await other.ask("who", id))[0].length === 0);
      assert.equal(client.socket.connected, false);
    });

    test("of what was written just before leaving, others hear a beginning without gaps", async (t) => {
      const [client, other] = await connectAll(t, [three[0], three[1]], { transports });
      const { id } = client;
      const tag = unique("last words");
      for (let n = 0; n < 20; n += 1) client.emit("bcast", { tag, n });
      client.socket.disconnect();
      await until("the socket gone", async () => (await other.ask("who", id))[0].length === 0);
      await fence(other, [other]);
      const heard = other.tagged(tag).map((data) => data.n);
      assert.deepEqual(heard, Array.from({ length: heard.length }, (_, n) => n));
    });

    test("a client that breaks the protocol is closed by the server and may connect again", async (t) => {
      const client = await connect(t, three[1], { transports });
      const { id } = client;
      // Not a Socket.IO packet: the engine carries it as a message all the same.
      client.socket.io.engine.write("abc");
      await client.until("a disconnect", () => client.disconnects.length > 0);
      assert.deepEqual(client.disconnects, ["transport close"]);
      await client.connected();
      assert.notEqual(client.id, id);
      assert.deepEqual(await client.ask("echo", "again"), ["again"]);
    });

    test("a lost connection comes back with a new id, without its rooms, and with what was written meanwhile", async (t) => {
      const [client, other] = await connectAll(t, [three[2], three[0]], { transports });
      const { id } = client;
      const room = unique("room");
      await client.done("join", room);
      client.socket.io.engine.close();
      await client.until("a disconnect", () => client.disconnects.length > 0);
      assert.deepEqual(client.disconnects, ["forced close"]);
      const meanwhile = client.ask("echo", "written while away");
      await client.connected();
      assert.deepEqual(await meanwhile, ["written while away"]);
      assert.notEqual(client.id, id);
      assert.ok(!client.socket.recovered, "nothing was recovered, for recovery is off");
      await until("the old id gone", async () => (await other.ask("who", room))[0].length === 0);

      const tag = unique("after");
      await other.done("dm", client.id, { tag });
      await client.expectTagged(tag, 1);
    });

    test("a client may leave and connect again as often as it likes", async (t) => {
      const client = await connect(t, three[0], { transports });
      const ids = new Set([client.id]);
      for (let round = 0; round < 5; round += 1) {
        client.socket.disconnect();
        client.socket.connect();
        await client.connected();
        ids.add(client.id);
        assert.deepEqual(await client.ask("echo", round), [round]);
      }
      assert.equal(ids.size, 6);
    });

    test("many clients that come and go leave nothing behind", async (t) => {
      const witness = await connect(t, three[1], { transports });
      const room = unique("crowd");
      const crowd = await connectAll(t, Array.from({ length: 30 }, (_, index) => three[index % 3]), { transports });
      await Promise.all(crowd.map((client) => client.done("join", room)));
      const ids = async () => (await witness.ask("who", room))[0];
      await until("30 in the room", async () => (await ids()).length === 30, ids);
      crowd.forEach((client, index) => (index % 2 === 0 ? client.close() : client.socket.io.engine.close()));
      crowd.forEach((client) => client.close());
      await until("an empty room", async () => (await ids()).length === 0, ids);
    });
  });
}
