// Sessions and their filter: login writes, tell selects, and a value matches only its equal.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, connect, connectAll, fence, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`sessions, ${mode}`, () => {
    test("tell reaches every socket whose session matches, from any node, and nobody else", async (t) => {
      const [annHere, annThere, bob, anonymous] = await connectAll(t, [three[0], three[2], three[1], three[0]], { transports });
      const name = unique("ann");
      await Promise.all([annHere.done("login", name), annThere.done("login", name), bob.done("login", unique("bob"))]);
      const senders = [annHere, bob, annThere, anonymous];
      const tag = unique("tell");
      for (const sender of senders) await sender.done("tell", { username: name }, { tag, from: sender.id });
      await Promise.all(senders.map((sender) => fence(sender, senders)));
      const expected = senders.map((sender) => sender.id);
      assert.deepEqual(annHere.tagged(tag).map((data) => data.from), expected);
      assert.deepEqual(annThere.tagged(tag).map((data) => data.from), expected);
      assert.deepEqual([...bob.tagged(tag), ...anonymous.tagged(tag)], []);
    });

    test("a later login replaces the earlier one", async (t) => {
      const [client, sender] = await connectAll(t, [three[0], three[1]], { transports });
      const [before, after] = [unique("before"), unique("after")];
      await client.done("login", before);
      await client.done("login", after);
      await sender.done("tell", { username: before }, { tag: before });
      await sender.done("tell", { username: after }, { tag: after });
      await fence(sender, [client]);
      assert.deepEqual([client.tagged(before).length, client.tagged(after).length], [0, 1]);
    });

    test("values match strictly: type and all", async (t) => {
      const logins = [1, "1", true, "true", null, "null", "", 0, false, undefined];
      const clients = await connectAll(t, logins.map((_, index) => three[index % 3]), { transports });
      // The last one does not log in: a key that is missing is not null.
      await Promise.all(clients.slice(0, -1).map((client, index) => client.done("login", logins[index])));
      const sender = await connect(t, three[1], { transports });
      for (const wanted of logins.slice(0, -1)) {
        const tag = unique("strict");
        await sender.done("tell", { username: wanted }, { tag });
        await fence(sender, clients);
        const reached = logins.filter((_, index) => clients[index].tagged(tag).length === 1);
        assert.deepEqual(reached, [wanted], `filter ${JSON.stringify(wanted)}`);
      }
    });

    test("every key of the filter must match", async (t) => {
      const [client, sender] = await connectAll(t, [three[2], three[0]], { transports });
      const username = unique("name");
      await client.done("login", username);
      const misses = [
        { username, role: "admin" },
        { username, role: null },
        { role: "admin" },
        { role: null },
        { Username: username },
        { username: `${username} ` },
        { username, constructor: "Object" },
      ];
      const tag = unique("keys");
      for (const filter of misses) await sender.done("tell", filter, { tag, filter });
      await sender.done("tell", { username }, { tag, hit: true });
      await fence(sender, [client]);
      assert.deepEqual(client.tagged(tag), [{ tag, hit: true }]);
    });

    test("a filter that is not an object of scalars reaches nobody and harms nobody", async (t) => {
      const [client, sender] = await connectAll(t, [three[0], three[1]], { transports });
      const username = unique("name");
      await client.done("login", username);
      const tag = unique("shape");
      for (const filter of [null, 7, "x", [username], { username: [username] }, { username: { username } }]) {
        await sender.ask("tell", filter, { tag, filter });
      }
      await fence(sender, [client]);
      assert.deepEqual(client.tagged(tag), []);
      assert.deepEqual(sender.disconnects, []);
    });

    test("binary and several messages pass a filter like any others, in order", async (t) => {
      const [client, sender] = await connectAll(t, [three[1], three[2]], { transports });
      const username = unique("name");
      await client.done("login", username);
      const tag = unique("binary");
      const sent = Array.from({ length: 30 }, (_, n) => ({ tag, n, data: Buffer.from([n, 255 - n]) }));
      for (const data of sent) sender.emit("tell", { username }, data);
      assert.deepEqual(await client.expectTagged(tag, sent.length), sent);
    });

    test("the session of a connection that ended matches no longer", async (t) => {
      const [going, sender] = await connectAll(t, [three[0], three[1]], { transports });
      const username = unique("name");
      await going.done("login", username);
      going.socket.disconnect();
      const coming = await connect(t, three[0], { transports });
      const tag = unique("gone");
      await sender.done("tell", { username }, { tag });
      await fence(sender, [coming]);
      assert.deepEqual([...coming.tagged(tag), ...going.tagged(tag)], []);
    });
  });
}
