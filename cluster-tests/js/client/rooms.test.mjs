// Rooms across nodes: who is in, who is reached, and the room that each socket is for itself.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, connectAll, fence, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { until } from "../lib/until.mjs";

async function who(client, room) {
  const [ids] = await client.ask("who", room);
  return ids.sort();
}

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`rooms, ${mode}`, () => {
    test("an acked join is seen by emits from every node at once", async (t) => {
      const clients = await connectAll(t, three, { transports });
      for (const member of clients) {
        const room = unique("room");
        await member.done("join", room);
        for (const sender of clients) sender.emit("room", room, { tag: room, from: sender.id });
        const got = await member.expectTagged(room, clients.length);
        assert.deepEqual(got.map((data) => data.from).sort(), clients.map((client) => client.id).sort());
      }
    });

    test("members receive once, others nothing, and the sender is no exception either way", async (t) => {
      const [member, sender, outsider] = await connectAll(t, three, { transports });
      const room = unique("room");
      await member.done("join", room);
      await member.done("join", room);
      await sender.done("room", room, { tag: room, n: 1 });
      await sender.done("join", room);
      await sender.done("room", room, { tag: room, n: 2 });
      await fence(sender, [member, sender, outsider]);
      assert.deepEqual(member.tagged(room).map((data) => data.n), [1, 2]);
      assert.deepEqual(sender.tagged(room).map((data) => data.n), [2]);
      assert.deepEqual(outsider.tagged(room), []);
    });

    test("an acked leave is seen by emits from every node at once", async (t) => {
      const clients = await connectAll(t, three, { transports });
      const [member] = clients;
      const room = unique("room");
      await member.done("join", room);
      await member.done("leave", room);
      for (const sender of clients) {
        await sender.done("room", room, { tag: room });
        await fence(sender, clients);
      }
      assert.deepEqual(member.tagged(room), []);
      assert.deepEqual(await who(clients[1], room), []);
    });

    test("leaving a room that one is not in is no error", async (t) => {
      const [client] = await connectAll(t, [three[1]], { transports });
      await client.done("leave", unique("never"));
      assert.deepEqual(await client.ask("echo", 1), [1]);
    });

    test("who answers with all sockets of the room, the same on every node", async (t) => {
      const clients = await connectAll(t, [...three, ...three], { transports });
      const room = unique("room");
      await Promise.all(clients.map((client) => client.done("join", room)));
      const everyone = clients.map((client) => client.id).sort();
      for (const asker of clients.slice(0, 3)) {
        await until(`all six at ${asker.where}`, async () => (await who(asker, room)).length === 6, () => who(asker, room));
        assert.deepEqual(await who(asker, room), everyone);
      }
      assert.deepEqual(await who(clients[0], unique("empty")), []);
    });

    test("dm reaches one socket, on whatever node it is", async (t) => {
      const clients = await connectAll(t, three, { transports });
      const tag = unique("dm");
      for (const sender of clients) {
        for (const target of clients) sender.emit("dm", target.id, { tag, from: sender.id, to: target.id });
      }
      for (const client of clients) {
        const got = await client.expectTagged(tag, clients.length);
        assert.deepEqual(got.map((data) => data.to), clients.map(() => client.id));
        assert.deepEqual(got.map((data) => data.from).sort(), clients.map((each) => each.id).sort());
      }
      await Promise.all(clients.map((client) => fence(client, clients)));
      for (const client of clients) assert.equal(client.tagged(tag).length, clients.length);
    });

    test("a socket is alone in the room of its own id, and others can join that room", async (t) => {
      const [host, guest, sender] = await connectAll(t, three, { transports });
      await until("the socket in its own room", async () => (await who(sender, host.id)).length === 1);
      assert.deepEqual(await who(sender, host.id), [host.id]);
      await guest.done("join", host.id);
      const tag = unique("own");
      await sender.done("dm", host.id, { tag });
      await Promise.all([host.expectTagged(tag, 1), guest.expectTagged(tag, 1)]);
    });

    test("dm to an id that nobody has reaches nobody and is acked", async (t) => {
      const clients = await connectAll(t, three, { transports });
      const tag = unique("dm");
      await clients[0].done("dm", "AAAAAAAAAAAAAAAAAAAA", { tag });
      await fence(clients[0], clients);
      for (const client of clients) assert.deepEqual(client.tagged(tag), []);
    });

    test("room names are any text", async (t) => {
      const [member, sender] = await connectAll(t, [three[0], three[2]], { transports });
      const names = ["", " ", "ü\u{1f6a2}", "a,b", "/", "#", "__proto__", "x".repeat(1000)].map((name) => unique("") + name);
      await Promise.all(names.map((name) => member.done("join", name)));
      for (const name of names) sender.emit("room", name, { tag: name });
      for (const name of names) await member.expectTagged(name, 1);
    });

    test("a socket that goes leaves its rooms on every node", async (t) => {
      const [going, ...staying] = await connectAll(t, three, { transports });
      const room = unique("room");
      await going.done("join", room);
      const { id } = going;
      going.socket.disconnect();
      for (const client of staying) {
        await until(`${id} gone at ${client.where}`, async () => (await who(client, room)).length === 0, () => who(client, room));
        // On its own node a socket leaves its rooms at once, and is gone once that is agreed.
        await until(`no socket ${id} at ${client.where}`, async () => (await who(client, id)).length === 0);
      }
    });

    test("a socket whose connection breaks leaves its rooms on every node", async (t) => {
      const [breaking, ...staying] = await connectAll(t, three, { transports, reconnection: false });
      const room = unique("room");
      await breaking.done("join", room);
      breaking.socket.io.engine.close();
      for (const client of staying) {
        await until(`an empty room at ${client.where}`, async () => (await who(client, room)).length === 0, () => who(client, room));
      }
    });
  });
}
