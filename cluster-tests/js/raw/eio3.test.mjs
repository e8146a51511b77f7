// Engine.IO 3 by hand, its payloads read and written by the parser of the official client of that time.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { describe, test } from "node:test";
import { request as httpRequest } from "node:http";
import { withBystanders } from "../lib/bystander.mjs";
import { request } from "../lib/http.mjs";
import { three } from "../lib/nodes.mjs";
import { Polling, Socket } from "../lib/raw.mjs";
import { within } from "../lib/until.mjs";
import { packageFolder, printVersions } from "../lib/versions.mjs";

printVersions("socket.io-client-2");

const parser = createRequire(join(packageFolder("socket.io-client-2"), "package.json"))("engine.io-parser");
const [first] = three;
const polling = "EIO=3&transport=polling";

function decode(body) {
  const packets = [];
  parser.decodePayload(body, (packet) => void packets.push(packet));
  return packets;
}

function encode(packets, supportsBinary) {
  return new Promise((resolve) => parser.encodePayload(packets, supportsBinary, resolve));
}

/** A body of bytes: `request` would read it as text. */
function getBytes(query) {
  const answered = new Promise((resolve, reject) => {
    const outgoing = httpRequest(new URL(`/socket.io/?${query}`, first.url), { agent: false }, async (response) => {
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      resolve({ type: response.headers["content-type"], body: Buffer.concat(chunks) });
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
  return within("a poll", answered);
}

async function open(more = "") {
  const { status, text } = await request(first, { query: polling + more });
  assert.equal(status, 200, text);
  const [packet] = decode(text);
  assert.equal(packet.type, "open");
  return { handshake: JSON.parse(packet.data), query: `${polling}&sid=${JSON.parse(packet.data).sid}` };
}

/** Packets, over as many polls as it takes. */
async function take(query, count) {
  const [packets, types] = [[], []];
  while (packets.length < count) {
    const { type, body } = await getBytes(query);
    types.push(type.toLowerCase());
    packets.push(...decode(type.startsWith("text/") ? body.toString() : body));
  }
  return { packets, types };
}

const EVENT = '51-7["echo",{"_placeholder":true,"num":0},"é\u{1f6a2}"]';
const ACK = '61-7[{"_placeholder":true,"num":0},"é\u{1f6a2}"]';

describe("engine.io 3", () => {
  withBystanders(three);

  test("the main namespace is there without asking", async () => {
    const { handshake, query } = await open();
    assert.deepEqual({ ...handshake, sid: "" }, { sid: "", upgrades: ["websocket"], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 });
    const { packets } = await take(query, 1);
    assert.deepEqual(packets, [{ type: "message", data: "0" }]);
  });

  for (const [name, more, supportsBinary] of [["as bytes", "", true], ["as base64", "&b64=1", false]]) {
    test(`payloads with binary, ${name}, are those of the official parser`, async () => {
      const { query } = await open(more);
      assert.deepEqual((await take(query, 1)).packets, [{ type: "message", data: "0" }]);
      const sent = [{ type: "message", data: EVENT }, { type: "message", data: Buffer.from([0, 1, 255]) }];
      const body = await encode(sent, supportsBinary);
      assert.equal(Buffer.isBuffer(body), supportsBinary);
      const headers = { "content-type": supportsBinary ? "application/octet-stream" : "text/plain;charset=UTF-8" };
      const posted = await request(first, { method: "POST", query, body, headers });
      assert.deepEqual([posted.status, posted.text], [200, "ok"]);
      const { packets, types } = await take(query, 2);
      assert.deepEqual(packets, [{ type: "message", data: ACK }, { type: "message", data: Buffer.from([0, 1, 255]) }]);
      assert.deepEqual(types, [supportsBinary ? "application/octet-stream" : "text/plain; charset=utf-8"]);
    });
  }

  test("whatever a client calls its version, what is not 4 is 3", async () => {
    for (const version of ["", "EIO=5&", "EIO=abc&", "EIO=&", "EIO=04&"]) {
      const { text } = await request(first, { query: `${version}transport=polling` });
      assert.equal(decode(text)[0].type, "open", version);
    }
  });

  test("requests of the other version are refused and disturb nothing", async () => {
    const { query } = await open();
    const refused = await request(first, { query: query.replace("EIO=3", "EIO=4") });
    assert.deepEqual([refused.status, refused.text], [400, '{"code":3,"message":"Bad request"}']);
    assert.deepEqual((await take(query, 1)).packets, [{ type: "message", data: "0" }]);
    const session = await Polling.join(first);
    const other = await request(first, { query: session.query.replace("EIO=4", "EIO=3") });
    assert.deepEqual([other.status, other.text], [400, '{"code":3,"message":"Bad request"}']);
    await session.works();
  });

  test("pings are answered, and a pong ends the connection", async (t) => {
    const socket = new Socket(first, "EIO=3&transport=websocket");
    t.after(() => socket.ws.terminate());
    assert.match((await socket.take(2)).join(), /^0\{.*\},40$/);
    socket.send("2");
    assert.deepEqual(await socket.take(1), ["3"]);
    socket.send("3");
    await socket.end();
  });

  test("binary frames carry their type both ways", async (t) => {
    const socket = new Socket(first, "EIO=3&transport=websocket");
    t.after(() => socket.ws.terminate());
    await socket.take(2);
    socket.send(`4${EVENT}`, Buffer.from([4, 9, 8]));
    assert.deepEqual(await socket.take(2), [`4${ACK}`, Buffer.from([4, 9, 8])]);
  });

  test("what is no payload ends the session", async () => {
    for (const body of ["42", "99:42", "9999999999999999999999:42", "2:9a"]) {
      const { query } = await open();
      await take(query, 1);
      // The official server cuts the request off that it would have to answer.
      await request(first, { method: "POST", query, body }).catch(() => {});
      const { status, text } = await request(first, { query });
      assert.deepEqual([status, text], [400, '{"code":1,"message":"Session ID unknown"}'], body);
    }
  });

  test("a namespace has a query, and what is refused is told without a wrapper", async (t) => {
    const socket = new Socket(first, "EIO=3&transport=websocket");
    t.after(() => socket.ws.terminate());
    await socket.take(2);
    socket.send("40/relay-direct?token=x,");
    assert.deepEqual(await socket.take(1), ["40/relay-direct,"]);
    socket.send("40/random?token=x,");
    assert.deepEqual(await socket.take(1), ['44/random,{"message":"Invalid namespace"}']);
    socket.send("40");
    await socket.end();
  });
});
