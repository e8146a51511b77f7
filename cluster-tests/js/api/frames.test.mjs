// The same frames as api.io's own server, which runs here beside the cluster: one script for both.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import WebSocket from "ws";
import { fresh } from "../lib/apiio.mjs";
import { three } from "../lib/nodes.mjs";
import { until } from "../lib/until.mjs";

const server = createServer();
let original;

before(async () => {
  const api = fresh("api.io");
  const { export: exported } = api;
  const myApi = api.register("myApi", {
    VALUE: "const",
    OBJ: { a: [1, { b: 2 }] },
    sum: exported((session, a, b) => a + b),
    sumAsync: exported(async (session, a, b) => a + b),
    send: exported((session, data) => myApi.emit("event4", data)),
    who: exported(async (session) => session),
    fail: exported(async (session, x) => Promise.reject(new Error(`boom ${x}`))),
    buf: exported(async (session, b) => ({ len: b.length, isBuf: Buffer.isBuffer(b), echo: b })),
  });
  const words = { "refused by error": new Error("unauthorized"), "refused by text": "nope", "refused by nothing": undefined };
  const authHandler = async ({ headers }) => {
    const word = headers.cookie?.slice("apiio=".length);
    if (word in words) throw words[word];
  };
  await api.start(server, { authHandler });
  api.on("connection", (client) => Object.assign(client.session, { username: "guest" }));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  original = { id: "api.io", url: `http://127.0.0.1:${server.address().port}` };
});

after(() => {
  server.closeAllConnections();
  server.close();
});

/** A WebSocket of generation 2 that collects what comes, sids apart. */
async function open(server, headers = {}) {
  const url = `${server.url.replace("http", "ws")}/socket.io/?EIO=3&transport=websocket`;
  const stream = new WebSocket(url, { headers });
  const frames = [];
  stream.on("message", (data, isBinary) => frames.push(isBinary ? data.toString("hex") : data.toString()));
  await new Promise((resolve, reject) => stream.on("open", resolve).on("error", reject));
  return { stream, frames, until: (count) => until(`${count} frames`, () => frames.length >= count, () => frames) };
}

/** What each server sends in answer to the same frames, the handshake apart. Each frame sent says how many come back. */
async function answers(server, script, headers) {
  const client = await open(server, headers);
  let count = script === undefined ? 2 : 3;
  await client.until(count);
  for (const [frames, expected] of script ?? []) {
    for (const frame of [frames].flat()) client.stream.send(frame);
    count += expected;
    await client.until(count);
  }
  client.stream.close();
  return client.frames.slice(1);
}

/** The changes that are meant (docs/dialects.md): a server's stack stays at home. */
function comparable(frame) {
  const [, head, json] = frame.match(/^(\d+(?:-\d*)?)(\[.*)?$/s) ?? [];
  if (json === undefined) return frame;
  const args = JSON.parse(json, (key, value) => (key === "stack" ? undefined : value));
  if (args[0] === "ready") return args[1].myApi;
  return [head, args];
}

async function same(script, headers) {
  const expected = (await answers(original, script, headers)).map(comparable);
  for (const node of three) {
    const found = (await answers(node, script, headers)).map(comparable);
    if (expected[1]?.sum) {
      // Of the definitions, those that the original has too.
      const names = Object.keys(expected[1]);
      found[1] = Object.fromEntries(Object.entries(found[1]).filter(([name]) => names.includes(name)));
    }
    assert.deepEqual(found, expected, node.id);
  }
  return expected;
}

describe("frames", () => {
  test("ready comes right behind CONNECT, with the definitions", async () => {
    const [connect, ready] = await same([]);
    assert.equal(connect, "40");
    assert.deepEqual(ready.sum, { type: "function", value: ["a", "b"] });
  });

  test("calls are answered", async () => {
    await same([
      ['420["myApi.sum",{"a":1,"b":2,"__stack":"Error\\n    at Client._call ..."}]', 1],
      ['421["myApi.sumAsync",{"b":2,"a":-5}]', 1],
      ['422["myApi.who",{"__stack":"..."}]', 1],
      ['423["myApi.fail",{"x":"z","__stack":"..."}]', 1],
      ['424["myApi.send",{"data":[1],"__stack":"..."}]', 1],
      [['451-8["myApi.buf",{"b":{"_placeholder":true,"num":0},"__stack":"..."}]', Buffer.from([4, 1, 2, 3])], 2],
    ]);
  });

  test("subscriptions get a frame for each name, before the ack of the call", async () => {
    const call = (id, data) => `42${id}["myApi.send",${JSON.stringify({ data })}]`;
    await same([
      ['42["_subscribeToEvent","myApi.event4",false]', 0],
      [call(0, "plain"), 2],
      ['42["_subscribeToEvent","myApi.event5#1",{"$gte":4}]', 0],
      [call(1, null), 2],
      ['42["_unsubscribeFromEvent","myApi.event4"]', 0],
      ['42["_subscribeToEvent","myApi.event4#1",{"$gte":4}]', 0],
      [call(2, 3), 1],
      [call(3, 4), 2],
      [call(4, "4"), 1],
      ['42["_unsubscribeFromEvent","myApi.event4#1"]', 0],
      ['42["_subscribeToEvent","myApi.event4#objq",{"value":{"$gte":4}}]', 0],
      [call(5, { value: 5 }), 2],
      ['42["_unsubscribeFromEvent","myApi.event4#objq"]', 0],
      ['42["_subscribeToEvent","myApi.event4#7",null]', 0],
      [call(6, { value: 1 }), 2],
      ['42["_unsubscribeFromEvent","myApi.event4#7"]', 0],
      ['42["_subscribeToEvent","myApi.event4",{"$gte":4}]', 0],
      [call(7, 1), 2],
    ]);
  });

  for (const word of ["refused by error", "refused by text", "refused by nothing"]) {
    test(`${word}: the ERROR packet has the same words`, async () => {
      const expected = await same(undefined, { cookie: `apiio=${word}` });
      assert.match(expected[0], /^44"/);
    });
  }
});
