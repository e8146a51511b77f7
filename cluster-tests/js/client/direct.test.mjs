// The same relay with direct delivery: each sender's order, everyone once, nothing agreed in between.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { testIf } from "../lib/conditional.mjs";
import { MODES, connectAll, fence, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { until } from "../lib/until.mjs";

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`direct delivery, ${mode}`, () => {
    test("a flood from three nodes reaches everyone once, each sender's part in its order", async (t) => {
      const clients = await connectAll(t, three, options(transports));
      await acquainted(clients);
      const tag = unique("flood");
      for (let n = 0; n < 200; n += 1) {
        for (const [from, sender] of clients.entries()) sender.emit("bcast", { tag, from, n });
      }
      await Promise.all(clients.map((client) => client.expectTagged(tag, 600)));
      await Promise.all(clients.map((client) => fence(client, clients)));
      for (const client of clients) {
        for (const from of clients.keys()) {
          const heard = client.tagged(tag).filter((data) => data.from === from).map((data) => data.n);
          assert.deepEqual(heard, Array.from({ length: 200 }, (_, n) => n), `${client.where} from ${from}`);
        }
      }
    });

    test("rooms and dms reach their targets on other nodes, and nobody else", async (t) => {
      const [member, sender, outsider] = await connectAll(t, three, options(transports));
      await acquainted([member, sender, outsider]);
      const room = unique("room");
      await member.done("join", room);
      await knows(sender, room, [member.id]);
      const tag = unique("direct");
      sender.emit("room", room, { tag, n: 0, data: Buffer.from([1, 2]) });
      sender.emit("dm", member.id, { tag, n: 1 });
      const got = await member.expectTagged(tag, 2);
      assert.deepEqual(got, [{ tag, n: 0, data: Buffer.from([1, 2]) }, { tag, n: 1 }]);
      await fence(sender, [member, sender, outsider]);
      assert.equal(member.tagged(tag).length, 2);
      assert.deepEqual([...sender.tagged(tag), ...outsider.tagged(tag)], []);

      await member.done("leave", room);
      await knows(sender, room, []);
      sender.emit("room", room, { tag, n: 2 });
      await fence(sender, [member]);
      assert.equal(member.tagged(tag).length, 2);
    });

    // Behind a balancer nobody can tell which node that is.
    testIf(!three[1].isBalancer)("a join is visible at once to emits on the socket's own node", async (t) => {
      const [member, neighbour] = await connectAll(t, [three[1], three[1]], options(transports));
      const room = unique("room");
      await member.done("join", room);
      await neighbour.done("room", room, { tag: room });
      await member.expectTagged(room, 1);
    });

    test("the session filter selects across nodes", async (t) => {
      const [ann, sender, bob] = await connectAll(t, three, options(transports));
      await acquainted([ann, sender, bob]);
      const name = unique("ann");
      await Promise.all([ann.done("login", name), bob.done("login", 1)]);
      const tag = unique("tell");
      // Direct is at most once, and the login reaches the sender's node when it does: so ask until it has.
      await until("a message by session", () => {
        sender.emit("tell", { username: name }, { tag });
        return ann.tagged(tag).length > 0;
      });
      sender.emit("tell", { username: "1" }, { tag });
      await fence(sender, [bob]);
      assert.deepEqual(bob.tagged(tag), []);
    });

    test("the ack of an emit comes after what was emitted", async (t) => {
      const [client] = await connectAll(t, [three[0]], options(transports));
      const tag = unique("before");
      for (let n = 0; n < 20; n += 1) {
        await client.done("bcast", { tag, n });
        assert.equal(client.tagged(tag).length, n + 1);
      }
    });
  });
}

function options(transports) {
  return { transports, namespace: "/relay-direct" };
}

/** Waits until a broadcast of each has reached all: from then on the nodes' links are known to carry. */
async function acquainted(clients) {
  for (const sender of clients) {
    const tag = unique("hello");
    await until(`everyone hears ${sender.where}`, () => {
      sender.emit("bcast", { tag });
      return clients.every((client) => client.tagged(tag).length > 0);
    });
    await fence(sender, clients);
  }
}

/** Waits until the client's node has applied the membership that other nodes already acked. */
async function knows(client, room, ids) {
  const seen = async () => (await client.ask("who", room))[0];
  await until(`${ids} in ${room} at ${client.where}`, async () => String(await seen()) === String(ids), seen);
}
