// Clients of generation 2, by each transport, alone and among clients of generation 4.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect, fence, unique } from "../lib/client.mjs";
import { LEGACY_MODES, connectLegacy } from "../lib/legacy.mjs";
import { three } from "../lib/nodes.mjs";
import { until } from "../lib/until.mjs";

const SHAPES = [
  null, true, 0, -1.5, 1e21, "", "text", [], {}, [[]], { a: { b: [1, [2]] } }, { "": 1, 'q"\\': 2 },
  "ümlaut 漢字 שלום \u{1f6a2}\u{1f468}\u200d\u{1f469}", "\u0000\u0001\u001e\u2028", "2probe", "b4AQID", "7:42[1]",
];

const bytes = (...values) => Buffer.from(values);
const patterned = (length) => Buffer.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 0xff);

for (const [mode, options] of Object.entries(LEGACY_MODES)) {
  describe(`generation 2, ${mode}`, () => {
    test("every node takes it, by the transport asked for, and knows it by its own id", async (t) => {
      for (const node of three) {
        const client = await connectLegacy(t, node, options);
        const expected = options.transports.at(-1);
        await client.until(`transport ${expected}`, () => client.transport === expected);
        assert.equal(client.id, client.ownId);
        assert.match(client.id, /^[\w-]{20}$/);
        assert.deepEqual(await client.ask("who", client.id), [[client.id]]);
      }
    });

    test("data of every shape comes back unchanged", async (t) => {
      const client = await connectLegacy(t, three[0], options);
      assert.deepEqual(await client.ask("echo", ...SHAPES), SHAPES);
      assert.deepEqual(await client.ask("echo"), []);
      const large = "é\u{1f6a2}".repeat(50_000);
      assert.deepEqual(await client.ask("echo", large), [large]);
    });

    test("binary goes in, out, and in acks", async (t) => {
      const client = await connectLegacy(t, three[1], options);
      const values = ["before", bytes(1, 2, 3), { a: [bytes(), patterned(300)] }, patterned(100_000), "ü\u{1f6a2}"];
      assert.deepEqual(await client.ask("echo", ...values), values);
      const tag = unique("binary");
      await client.done("dm", client.id, { tag, file: patterned(70_000), more: [bytes(0, 255)] });
      assert.deepEqual(await client.expectTagged(tag, 1), [{ tag, file: patterned(70_000), more: [bytes(0, 255)] }]);
    });

    test("nothing is lost, doubled or moved while it changes its transport", async (t) => {
      const client = await connectLegacy(t, three[1], options);
      const answers = [];
      for (let index = 0; index < 300; index += 1) {
        const data = index % 7 === 0 ? bytes(index & 0xff) : index;
        client.socket.emit("echo", index, data, (answer) => answers.push(answer));
        if (index % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await client.until("300 acks", () => answers.length >= 300);
      assert.deepEqual(answers, Array.from({ length: 300 }, (_, index) => index));
      assert.deepEqual(client.disconnects, []);
    });

    test("another namespace takes it, with or without a query, under the id that it makes", async (t) => {
      const other = await connect(t, three[1], { namespace: "/relay-direct" });
      for (const query of [undefined, { token: "x y&z" }]) {
        const client = await connectLegacy(t, three[0], options);
        const direct = client.namespace("/relay-direct", { query });
        await direct.connected();
        const { id } = direct;
        assert.equal(id, `/relay-direct#${client.id}`);
        const tag = unique("direct");
        const known = async () => (await other.ask("who", id))[0];
        await until("it to be known", async () => (await known()).length === 1, known);
        assert.deepEqual(await known(), [id]);
        await other.done("dm", id, { tag });
        await direct.expectTagged(tag, 1);
        assert.deepEqual(client.tagged(tag), [], "the other namespace is another socket");
        direct.socket.close();
        await until("it to be gone", async () => (await known()).length === 0, known);
        assert.deepEqual(await client.ask("echo", 1), [1]);
      }
    });

    test("a namespace in the url takes its query along", async (t) => {
      const client = await connectLegacy(t, three[2], { ...options, namespace: "/relay-direct?token=1" });
      assert.equal(client.id, `/relay-direct#${client.socket.io.engine.id}`);
      assert.deepEqual(await client.ask("echo", 1), [1]);
    });

    test("an unknown namespace is an error there, and the others live on", async (t) => {
      const client = await connectLegacy(t, three[2], options);
      const refused = client.namespace("/nowhere");
      await refused.until("an error", () => refused.errors.length > 0);
      assert.deepEqual(refused.errors, [{ message: "Invalid namespace" }]);
      assert.equal(refused.socket.connected, false);
      assert.deepEqual(await client.ask("echo", "alive"), ["alive"]);
      assert.deepEqual(client.disconnects, []);
    });

    test("both generations share rooms across nodes", async (t) => {
      const [old, another] = await Promise.all([connectLegacy(t, three[0], options), connectLegacy(t, three[1], options)]);
      const [polls, young] = await Promise.all([
        connect(t, three[1], { transports: ["polling"] }),
        connect(t, three[2]),
      ]);
      const [room, members] = [unique("mixed"), [old, another, polls, young]];
      for (const member of members) await member.done("join", room);
      const ids = members.map((member) => member.id).sort();
      const data = { tag: room, file: patterned(500), text: "é\u{1f6a2}" };
      for (const sender of members) {
        await sender.done("room", room, { ...data, from: sender.id });
        await until("all to be known", async () => (await sender.ask("who", room))[0].length === 4);
        assert.deepEqual((await sender.ask("who", room))[0].sort(), ids);
      }
      await fence(young, members);
      for (const member of members) {
        const expected = members.map((sender) => ({ ...data, from: sender.id }));
        assert.deepEqual(member.tagged(room), expected, member.where);
      }
      await old.done("dm", young.id, { tag: unique("dm") });
      const tag = unique("dm");
      await young.done("dm", old.id, { tag });
      await old.expectTagged(tag, 1);
    });

    test("it comes back by itself, as somebody new", async (t) => {
      const client = await connectLegacy(t, three[0], options);
      const witness = await connect(t, three[1]);
      const id = client.id;
      client.socket.io.engine.close();
      await client.until("the loss", () => client.disconnects.length === 1);
      await client.connected();
      assert.notEqual(client.id, id);
      assert.equal(client.id, client.ownId);
      await until("the old id gone", async () => (await witness.ask("who", id))[0].length === 0);
      const tag = unique("after");
      await until("the new one known", async () => (await witness.ask("who", client.id))[0].length === 1);
      await witness.done("dm", client.id, { tag });
      await client.expectTagged(tag, 1);
      assert.deepEqual(client.disconnects, ["forced close"], "the client's own word for it");
    });

    test("it may leave one namespace, and all of them", async (t) => {
      const client = await connectLegacy(t, three[0], options);
      const witness = await connect(t, three[1]);
      const direct = client.namespace("/relay-direct");
      await direct.connected();
      direct.socket.close();
      assert.deepEqual(direct.disconnects, ["io client disconnect"]);
      assert.deepEqual(await client.ask("echo", 1), [1]);
      const { id } = client;
      client.close();
      assert.deepEqual(client.disconnects, ["io client disconnect"]);
      await until("it to be gone", async () => (await witness.ask("who", id))[0].length === 0);
    });
  });
}
