// The session of api.io's cookie, on whatever node its client is.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connectApi } from "../lib/apiio.mjs";
import { three } from "../lib/nodes.mjs";

/** As a browser meets the cluster for the first time: the id of the session that was made for it. */
async function newSession(node) {
  const response = await fetch(`${node.url}/socket.io/?EIO=3&transport=polling&b64=1`);
  await response.text();
  const cookies = response.headers.getSetCookie();
  return cookies.map((cookie) => cookie.match(/^apiio=([^;]+)/)?.[1]).find(Boolean);
}

test("a session follows its client from node to node, and outlives its connections", async (t) => {
  const sessionId = await newSession(three[0]);
  assert.ok(sessionId, "the handshake sets the cookie");
  const first = await connectApi(t, three[0], { sessionId });
  await first.tools.remember("color", "blue");
  await first.disconnect();
  for (const node of three) {
    const api = await connectApi(t, node, { sessionId });
    assert.deepEqual(await api.myApi.who(), { username: "guest", color: "blue" }, node.id);
  }
  const stranger = await connectApi(t, three[1]);
  assert.deepEqual(await stranger.myApi.who(), { username: "guest" });
});

test("an id that nobody was given is not adopted", async (t) => {
  const sessionId = (await newSession(three[2])).replace(/^./, (first) => (first === "A" ? "B" : "A"));
  const [one, other] = await Promise.all([connectApi(t, three[0], { sessionId }), connectApi(t, three[1], { sessionId })]);
  await one.tools.remember("color", "red");
  assert.deepEqual(await other.myApi.who(), { username: "guest" });
});
