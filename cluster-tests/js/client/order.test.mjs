// One order for all, and for each sender the order in which it wrote.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, connect, connectAll, fence, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";

const FLOOD = 400;

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`order, ${mode}`, () => {
    test("clients that flood from different nodes are heard in one order everywhere", async (t) => {
      const senders = await connectAll(t, three, { transports });
      const listeners = await connectAll(t, three, { transports });
      const tag = unique("flood");
      for (let n = 0; n < FLOOD; n += 1) {
        for (const [from, sender] of senders.entries()) sender.emit("bcast", { tag, from, n });
        // A breath now and then, so that the floods meet at the nodes instead of following each other.
        if (n % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      const total = FLOOD * senders.length;
      const [agreed, ...others] = await Promise.all([...senders, ...listeners].map((client) => client.expectTagged(tag, total)));
      assert.equal(agreed.length, total);
      for (const sequence of others) assertSameSequence(sequence, agreed);
      for (const from of senders.keys()) {
        const own = agreed.filter((data) => data.from === from).map((data) => data.n);
        assert.deepEqual(own, Array.from({ length: FLOOD }, (_, n) => n));
      }
    });

    test("rooms, dms, session filters and broadcasts share that order", async (t) => {
      const members = await connectAll(t, three, { transports });
      const room = unique("room");
      const username = unique("name");
      await Promise.all(members.flatMap((client) => [client.done("join", room), client.done("login", username)]));
      const tag = unique("mixed");
      for (let n = 0; n < 100; n += 1) {
        members[n % 3].emit("room", room, { tag, n, by: "room" });
        members[(n + 1) % 3].emit("bcast", { tag, n, by: "bcast" });
        members[(n + 2) % 3].emit("tell", { username }, { tag, n, by: "tell" });
      }
      const [agreed, ...others] = await Promise.all(members.map((client) => client.expectTagged(tag, 300)));
      for (const sequence of others) assertSameSequence(sequence, agreed);
    });

    test("what one client fires without waiting arrives as it was written, acks included", async (t) => {
      const [sender, target] = await connectAll(t, [three[0], three[2]], { transports });
      const room = unique("room");
      await target.done("join", room);
      const tag = unique("written");
      const verbs = [["room", room], ["dm", target.id], ["bcast"]];
      const acked = [];
      for (let n = 0; n < 300; n += 1) {
        const [verb, ...where] = verbs[n % 3];
        sender.socket.emit(verb, ...where, { tag, n }, (...got) => acked.push([n, got]));
      }
      const got = await target.expectTagged(tag, 300);
      assert.deepEqual(got.map((data) => data.n), Array.from({ length: 300 }, (_, n) => n));
      await sender.until("300 acks", () => acked.length >= 300);
      assert.deepEqual(acked.map(([, answer]) => answer), acked.map(() => []));
    });

    test("joins, leaves and logins keep their place among emits that nobody waits for", async (t) => {
      const client = await connect(t, three[1], { transports });
      const [room, name] = [unique("room"), unique("name")];
      const tag = unique("place");
      const send = (n) => client.emit("room", room, { tag, n });
      send(0);
      client.emit("join", room);
      send(1);
      client.emit("leave", room);
      send(2);
      client.emit("join", room);
      send(3);
      client.emit("tell", { username: name }, { tag, n: 4 });
      client.emit("login", name);
      client.emit("tell", { username: name }, { tag, n: 5 });
      client.emit("bcast", { tag, n: 6 });
      client.emit("dm", client.id, { tag, n: 7 });
      await fence(client, [client]);
      assert.deepEqual(client.tagged(tag).map((data) => data.n), [1, 3, 5, 6, 7]);
    });

    test("the same without acks in between, two hundred times over", async (t) => {
      const client = await connect(t, three[2], { transports });
      const room = unique("room");
      const tag = unique("toggle");
      for (let n = 0; n < 200; n += 1) {
        client.emit(n % 2 === 0 ? "join" : "leave", room);
        client.emit("room", room, { tag, n });
      }
      await fence(client, [client]);
      assert.deepEqual(client.tagged(tag).map((data) => data.n), Array.from({ length: 100 }, (_, n) => 2 * n));
    });

    test("every message reaches each connected client once", async (t) => {
      const clients = await connectAll(t, [...three, ...three, ...three], { transports });
      const tag = unique("once");
      await Promise.all(clients.map((client, from) => client.done("bcast", { tag, from })));
      await fence(clients[0], clients);
      for (const client of clients) {
        const senders = client.tagged(tag).map((data) => data.from);
        assert.deepEqual(senders.sort(), [...clients.keys()]);
      }
    });
  });
}

/** Like deepEqual, but names the first place that differs instead of printing a thousand lines. */
function assertSameSequence(sequence, agreed) {
  const at = sequence.findIndex((data, index) => JSON.stringify(data) !== JSON.stringify(agreed[index]));
  assert.equal(at, -1, `at place ${at}: ${JSON.stringify(sequence[at])} instead of ${JSON.stringify(agreed[at])}`);
  assert.equal(sequence.length, agreed.length);
}
