// Data travels unchanged: every shape of JSON, unicode, large payloads, binary in any place.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { testIf } from "../lib/conditional.mjs";
import { MODES, connect, connectAll, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { isMsgpack } from "../lib/parser.mjs";

const SHAPES = {
  // The msgpack parser of npm writes integers from 2^64 on as other ones.
  scalars: [null, true, false, 0, -1, 1.5, ...(isMsgpack ? [] : [1e21]), -1e-7, 9007199254740991, "", "text"],
  containers: [[], {}, [[]], [{}], { a: [] }, { a: { b: { c: [1, [2, [3]]] } } }],
  "keys that look special": [
    { "": 1, " ": 2, "1": 3, constructor: 4, toJSON: 5, "a.b": 6, 'q"\\': 7 },
    { _placeholder: false, num: 0 },
  ],
  "control characters and separators": ["\u0000\u0001\u001e\u001f\u007f", "\u2028\u2029\ufeff", '"\\/\b\f\n\r\t', "\\n", "]},[{"],
  unicode: ["ümlaut ß", "漢字かな", "שלום", "\u{1f6a2}\u{1f468}\u200d\u{1f469}\u200d\u{1f467}", "e\u0301", "\ud7ff\ue000\uffff"],
  "text that looks like a packet": ["2probe", '42["msg"]', "b4AQID", "451-[]", "/namespace,1", "0{}"],
};

const bytes = (...values) => Buffer.from(values);
/** A buffer whose bytes depend on their place, so that a misplaced chunk is seen. */
const patterned = (length) => Buffer.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 0xff);

const BINARIES = {
  "one attachment": [bytes(1, 2, 3)],
  "an empty attachment": [bytes()],
  "every byte": [Buffer.from({ length: 256 }, (_, index) => index)],
  "attachments among other arguments": ["before", bytes(1), 2, bytes(3), { after: true }],
  "attachments in nested places": [{ a: { b: [null, bytes(9), { c: bytes(8, 7) }] } }, [[bytes(6)]]],
  "as many attachments as the parser allows": Array.from({ length: 10 }, (_, index) => patterned(index * 100)),
};

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`echo, ${mode}`, () => {
    for (const [name, values] of Object.entries(SHAPES)) {
      test(`${name} come back unchanged`, async (t) => {
        const client = await connect(t, three[0], { transports });
        assert.deepEqual(await client.ask("echo", ...values), values);
        for (const value of values) assert.deepEqual(await client.ask("echo", value), [value]);
      });
    }

    for (const [name, values] of Object.entries(BINARIES)) {
      test(`${name} come back unchanged`, async (t) => {
        const client = await connect(t, three[1], { transports });
        assert.deepEqual(await client.ask("echo", ...values), values);
      });
    }

    test("no data at all is acked with nothing", async (t) => {
      const client = await connect(t, three[2], { transports });
      assert.deepEqual(await client.ask("echo"), []);
    });

    // In MessagePack they have a type of their own, and differ between Node and browsers.
    testIf(!isMsgpack)("typed arrays and array buffers arrive as their bytes", async (t) => {
      const client = await connect(t, three[0], { transports });
      const [fromArray, fromBuffer] = await client.ask("echo", new Uint16Array([1, 256]), bytes(5, 6).buffer.slice(0, 0));
      assert.deepEqual([...fromArray], [1, 0, 0, 1]);
      assert.equal(fromBuffer.length, 0);
    });

    test("large text and large binary come back whole", async (t) => {
      const client = await connect(t, three[1], { transports });
      const text = "0123456789ü".repeat(60_000);
      assert.deepEqual(await client.ask("echo", text), [text]);
      const binary = patterned(600_000);
      const [back] = await client.ask("echo", binary);
      assert.ok(binary.equals(back), "600,000 bytes changed on their way");
      assert.deepEqual(client.disconnects, []);
    });

    test("text and binary reach clients of every node unchanged, by broadcast", async (t) => {
      const clients = await connectAll(t, three, { transports });
      const tag = unique("shapes");
      const sent = [
        { tag, shapes: SHAPES },
        { tag, binary: patterned(70_000), nested: [{ deep: bytes(0, 255) }, bytes()] },
        { tag, text: "ü\u{1f6a2}".repeat(50_000) },
      ];
      for (const data of sent) clients[0].emit("bcast", data);
      for (const client of clients) assert.deepEqual(await client.expectTagged(tag, sent.length), sent);
    });

    test("many attachments in flight never mix", async (t) => {
      const client = await connect(t, three[2], { transports });
      const sent = Array.from({ length: 100 }, (_, index) => [index, bytes(index), "x".repeat(index), bytes(index, index)]);
      const answers = await Promise.all(sent.map((values) => client.ask("echo", ...values)));
      assert.deepEqual(answers, sent);
    });
  });
}
