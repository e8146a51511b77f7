// Connecting: by each transport, with an auth payload, to namespaces that exist and to one that does not.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { MODES, connect, connectAll, dial } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { printVersions } from "../lib/versions.mjs";

printVersions("ws", "xmlhttprequest-ssl");

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`connect, ${mode}`, () => {
    test("every node takes clients, by the transport asked for", async (t) => {
      const clients = await connectAll(t, three, { transports });
      const expected = transports.at(-1);
      for (const client of clients) {
        await client.until(`transport ${expected}`, () => client.transport === expected);
        assert.deepEqual(await client.ask("echo", "here"), ["here"]);
      }
    });

    test("ids are 20 characters, all different, and not the connection's", async (t) => {
      const clients = await connectAll(t, [...three, ...three], { transports });
      for (const client of clients) {
        assert.match(client.id, /^[\w-]{20}$/);
        assert.notEqual(client.id, client.socket.io.engine.id);
      }
      assert.equal(new Set(clients.map((client) => client.id)).size, clients.length);
    });

    test("an auth payload is accepted, as an object and from a function", async (t) => {
      const payloads = [
        { token: "123" },
        { deep: { list: [1, null, "ü\u{1f6a2}"] }, "": "" },
        (answer) => answer({ late: true }),
        {},
      ];
      for (const auth of payloads) {
        const client = await connect(t, three[0], { transports, auth });
        assert.deepEqual(await client.ask("echo", 1), [1]);
        client.close();
      }
    });

    test("query parameters of the application are no obstacle", async (t) => {
      const client = await connect(t, three[1], { transports, query: { room: "a b&c=d", "ü": "ß" } });
      assert.deepEqual(await client.ask("echo", 1), [1]);
    });

    test("an unknown namespace is refused and the other namespaces of the connection live on", async (t) => {
      const client = await connect(t, three[2], { transports });
      const refused = client.namespace("/nowhere");
      await refused.until("a refusal", () => refused.refusals.length > 0);
      assert.deepEqual(refused.refusals, ["Invalid namespace"]);
      assert.equal(refused.socket.connected, false);
      assert.deepEqual(await client.ask("echo", "alive"), ["alive"]);
      assert.deepEqual(client.disconnects, []);
    });

    test("a client that asks for nothing but an unknown namespace learns why", async (t) => {
      const client = dial(t, three[0], { transports, namespace: "/nowhere/at/all" });
      await client.until("a refusal", () => client.refusals.length > 0);
      assert.deepEqual(client.refusals, ["Invalid namespace"]);
    });

    test("events written before the connection exists arrive in the order in which they were written", async (t) => {
      const client = dial(t, three[0], { transports });
      const answers = await Promise.all(Array.from({ length: 50 }, (_, index) => client.ask("echo", index)));
      assert.deepEqual(answers.flat(), Array.from({ length: 50 }, (_, index) => index));
    });

    test("nothing is lost, doubled or moved while a client changes its transport", async (t) => {
      const client = dial(t, three[1], { transports });
      const answers = [];
      // A steady stream from the first moment: on the upgrade path it covers the probe and the switch.
      for (let index = 0; index < 300; index += 1) {
        client.socket.emit("echo", index, (answer) => answers.push(answer));
        if (index % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await client.until("300 acks", () => answers.length >= 300);
      assert.deepEqual(answers, Array.from({ length: 300 }, (_, index) => index));
      assert.deepEqual(client.disconnects, []);
    });
  });
}
