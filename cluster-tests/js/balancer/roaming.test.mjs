// One connection whose requests reach all nodes in turn: complete, in order, and the nodes' own counts show it.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { testIf } from "../lib/conditional.mjs";
import { MODES, connect, connectAll, fence, unique } from "../lib/client.mjs";
import { relayed } from "../lib/metrics.mjs";
import { nodes, three } from "../lib/nodes.mjs";

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`through the balancer, ${mode}`, () => {
    test("thousands of packets in both directions are complete and in order", async (t) => {
      const client = await connect(t, three[0], { transports });
      const answers = [];
      for (let n = 0; n < 3000; n += 1) {
        client.socket.emit("echo", n, Buffer.from([n & 0xff]), (...answer) => answers.push(answer));
        // Many small bodies rather than few large ones.
        if (n % 10 === 9) await new Promise((resolve) => setImmediate(resolve));
      }
      await client.until("3000 acks", () => answers.length === 3000);
      answers.forEach(([n, bytes], index) => {
        assert.equal(n, index);
        assert.deepEqual([...bytes], [index & 0xff]);
      });
      assert.deepEqual(client.disconnects, []);
    });

    test("everyone hears everyone, in one order", async (t) => {
      const clients = await connectAll(t, Array.from({ length: 9 }, () => three[0]), { transports });
      const tag = unique("order");
      for (let n = 0; n < 50; n += 1) {
        for (const [from, client] of clients.entries()) client.emit("bcast", { tag, from, n });
        await new Promise((resolve) => setImmediate(resolve));
      }
      for (const client of clients) await client.expectTagged(tag, 450);
      await fence(clients[0], clients);
      const first = clients[0].tagged(tag);
      for (const client of clients) {
        assert.deepEqual(client.tagged(tag), first);
        assert.deepEqual(client.disconnects, []);
      }
      for (const from of clients.keys()) {
        const numbers = first.filter((data) => data.from === from).map((data) => data.n);
        assert.deepEqual(numbers, Array.from({ length: 50 }, (_, n) => n));
      }
    });

    test("a client that leaves is gone on every node, and nothing of it is left between them", async (t) => {
      const [witness, ...clients] = await connectAll(t, Array.from({ length: 7 }, () => three[0]), { transports });
      const room = unique("room");
      for (const client of clients) await client.done("join", room);
      // The witness asks its own node, which may hear of the last join a moment later.
      await witness.until("six in the room", async () => (await witness.ask("who", room))[0].length === 6);
      clients.forEach((client, index) => (index % 2 ? client.close() : client.socket.io.engine.close()));
      clients.forEach((client) => client.close());
      let left;
      await witness.until("an empty room", async () => {
        [left] = await witness.ask("who", room);
        return left.length === 0;
      });
    });
  });
}

testIf(nodes.length > 1)("requests do reach other nodes than their connection's", async (t) => {
  const before = await relayed(nodes);
  const polling = await connect(t, three[0], { transports: ["polling"] });
  for (let n = 0; n < 30; n += 1) assert.deepEqual(await polling.ask("echo", n), [n]);
  // A client has one upgrade, and the node that it meets with it may be its connection's own.
  let after = before;
  for (let n = 0; n < 30 && after.upgrade === before.upgrade; n += 1) {
    const client = await connect(t, three[0], { transports: MODES.upgrade });
    await client.until("the upgrade", () => client.transport === "websocket");
    after = await relayed(nodes);
  }
  for (const kind of ["poll", "post", "upgrade"]) {
    assert.ok(after[kind] > before[kind], `${kind}: ${JSON.stringify({ before, after })}`);
  }
});
