// The first request: what is answered, and the exact error for everything that is not a handshake.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { withBystanders } from "../lib/bystander.mjs";
import { request, requestWebSocket } from "../lib/http.mjs";
import { three } from "../lib/nodes.mjs";
import { Polling, Socket } from "../lib/raw.mjs";
import { packageFolder } from "../lib/versions.mjs";

const [first] = three;
const UNKNOWN_SID = "AAAAAAAAAAAAAAAAAAAA";

const TRANSPORT_UNKNOWN = { code: 0, message: "Transport unknown" };
const SESSION_UNKNOWN = { code: 1, message: "Session ID unknown" };
const BAD_METHOD = { code: 2, message: "Bad handshake method" };
const BAD_REQUEST = { code: 3, message: "Bad request" };

function assertError(response, expected, what) {
  assert.equal(response.status, 400, what);
  assert.equal(response.text, JSON.stringify(expected), what);
  assert.match(response.headers["content-type"], /^application\/json/, what);
}

describe("handshake", () => {
  withBystanders(three);

  test("polling is answered with the settings and the possible upgrade", async () => {
    for (const node of three) {
      const { handshake, headers } = await Polling.open(node);
      assert.deepEqual(Object.keys(handshake), ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"]);
      assert.match(handshake.sid, /^[\w-]{20}$/);
      assert.deepEqual({ ...handshake, sid: "" }, { sid: "", upgrades: ["websocket"], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 });
      assert.match(headers["content-type"], /^text\/plain; charset=utf-8$/i);
      assert.equal(headers["cache-control"], "no-store");
      assert.equal(headers["set-cookie"], undefined);
    }
  });

  test("websocket is answered with no further upgrade", async (t) => {
    for (const node of three) {
      const { handshake } = await Socket.open(t, node);
      assert.deepEqual({ ...handshake, sid: "" }, { sid: "", upgrades: [], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 });
    }
  });

  test("session ids are never given twice", async () => {
    const sessions = await Promise.all(Array.from({ length: 60 }, (_, index) => Polling.open(three[index % 3])));
    assert.equal(new Set(sessions.map((session) => session.sid)).size, 60);
  });

  test("unknown parameters are ignored and order does not matter", async () => {
    const response = await request(first, { query: "t=abc&x=%20&transport=polling&b64=0&EIO=4" });
    assert.equal(response.status, 200);
    assert.equal(response.text[0], "0");
  });

  test("code 0: a transport that is missing or unknown", async () => {
    for (const transport of ["", "&transport=", ...names("abc", "constructor", "__proto__", "webtransport", "POLLING")]) {
      assertError(await request(first, { query: `EIO=4${transport}` }), TRANSPORT_UNKNOWN, transport);
    }
    function names(...list) {
      return list.map((name) => `&transport=${name}`);
    }
  });

  test("code 1: a session id that nobody has, for every method and node", async () => {
    for (const node of three) {
      for (const method of ["GET", "POST", "PUT", "DELETE"]) {
        const response = await request(node, { method, query: `EIO=4&transport=polling&sid=${UNKNOWN_SID}` });
        assertError(response, SESSION_UNKNOWN, method);
      }
    }
    for (const sid of ["x", "..%2f..", "%00", "a".repeat(5000)]) {
      assertError(await request(first, { query: `EIO=4&transport=polling&sid=${sid}` }), SESSION_UNKNOWN, sid);
    }
  });

  test("code 2: a handshake by another method than GET", async () => {
    for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
      assertError(await request(first, { method, query: "EIO=4&transport=polling" }), BAD_METHOD, method);
    }
  });

  test("code 3: websocket without an upgrade, and another transport or version than the session's", async (t) => {
    assertError(await request(first, { query: "EIO=4&transport=websocket" }), BAD_REQUEST, "no upgrade");
    const polling = await Polling.join(first);
    assertError(await request(first, { query: `EIO=4&transport=websocket&sid=${polling.sid}` }), BAD_REQUEST, "no upgrade, with sid");
    assertError(await request(first, { query: `EIO=3&transport=polling&sid=${polling.sid}` }), BAD_REQUEST, "other version");
    await polling.works();
    const socket = await Socket.join(t, first);
    assertError(await request(first, { query: `EIO=4&transport=polling&sid=${socket.sid}` }), BAD_REQUEST, "other transport");
    const post = await request(first, { method: "POST", query: `EIO=4&transport=polling&sid=${socket.sid}`, body: "41" });
    assertError(post, BAD_REQUEST, "post to a websocket session");
    await socket.works();
  });

  test("refused upgrades say why in plain text", async () => {
    const cases = [
      ["EIO=4", "Transport unknown"],
      ["EIO=4&transport=abc", "Transport unknown"],
      [`EIO=4&transport=websocket&sid=${UNKNOWN_SID}`, "Session ID unknown"],
    ];
    for (const [query, message] of cases) {
      const response = await requestWebSocket(first, query);
      assert.equal(response.status, 400, query);
      assert.equal(response.text, message, query);
      assert.match(response.headers["content-type"], /^text\/html/, query);
    }
  });

  test("PUT and DELETE to a session are refused and do not disturb it", async () => {
    const session = await Polling.join(first);
    for (const method of ["PUT", "DELETE", "PATCH"]) {
      const response = await session.get({ method });
      assert.equal(response.status, 500, method);
      assert.equal(response.text, "", method);
    }
    await session.works();
  });

  test("without configured origins no CORS header is sent", async () => {
    const headers = { origin: "http://elsewhere.example" };
    const handshake = await request(first, { query: "EIO=4&transport=polling", headers });
    assert.equal(handshake.status, 200);
    assert.equal(handshake.headers["access-control-allow-origin"], undefined);
    const error = await request(first, { query: "EIO=4&transport=abc", headers });
    assert.equal(error.headers["access-control-allow-origin"], undefined);
  });

  test("the client bundle is served as the package has it, and not again to who has it", async () => {
    const folder = join(packageFolder("socket.io-client"), "dist");
    const files = ["socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.js.map", "socket.io.min.js.map"];
    for (const file of files) {
      const path = `/socket.io/${file}`;
      const response = await request(first, { path });
      assert.equal(response.status, 200, file);
      assert.ok(response.text === readFileSync(join(folder, file), "utf8"), `${file} differs from the package's`);
      assert.match(response.headers["content-type"], file.endsWith(".map") ? /json/ : /javascript/, file);
      const { etag } = response.headers;
      assert.ok(etag, `${file} has no ETag`);
      assert.match(response.headers["cache-control"], /max-age=0/);
      assert.equal((await request(first, { path, headers: { "if-none-match": etag } })).status, 304, file);
      assert.equal((await request(first, { path, headers: { "if-none-match": `W/${etag}` } })).status, 304, file);
      assert.equal((await request(first, { path, headers: { "if-none-match": '"other"' } })).status, 200, file);
    }
  });

  test("the client bundle is the only thing served beside the protocol", async () => {
    for (const path of ["/socket.io/..%2fpackage.json", "/socket.io/socket.io.js/x", "/socket.io/secret.js", "/socket.iox/"]) {
      const response = await request(first, { path });
      assert.ok([400, 404].includes(response.status), `${path}: ${response.status}`);
    }
  });
});
