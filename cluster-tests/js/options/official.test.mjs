// HTTP options of Engine.IO, against the official server: the same requests, to a node with `settings.sh` and to a server
// with the same options in this process, must have the same answers.

import assert from "node:assert/strict";
import { createServer, request as httpRequest } from "node:http";
import { after, before, describe, test } from "node:test";
import { gunzipSync, inflateSync } from "node:zlib";
import { Server } from "socket.io";
import { request, requestWebSocket } from "../lib/http.mjs";
import { node } from "../lib/nodes.mjs";
import { printVersions } from "../lib/versions.mjs";

printVersions("socket.io");

const OPEN = "EIO=4&transport=polling";
const ORIGINS = ["http://app.example", "https://a.other.example", "http://evil.example", undefined];

const http = createServer((_request, response) => response.writeHead(404).end());
const io = new Server(http, {
  cors: {
    origin: ["http://app.example", /\.other\.example$/],
    credentials: true,
    exposedHeaders: ["x-served-by"],
    maxAge: 600,
  },
  cookie: { name: "affinity", maxAge: 3600, secure: true, sameSite: "none" },
  addTrailingSlash: false,
});
io.on("connection", (socket) => socket.on("echo", (...args) => args.pop()(...args)));
let servers;

before(async () => {
  await new Promise((listening) => http.listen(0, "127.0.0.1", listening));
  servers = [{ url: `http://127.0.0.1:${http.address().port}` }, node(0)];
});
after(() => io.close());

/** What of an answer has to be the same. */
function comparable({ status, headers, text }) {
  const kept = { ...headers };
  // The HTTP server's own, and what is different with every answer.
  for (const name of ["date", "connection", "keep-alive", "content-length", "transfer-encoding", "sec-websocket-accept"]) {
    delete kept[name];
  }
  const cookies = kept["set-cookie"]?.map((cookie) => cookie.replace(/=[^;]{20};/, "=<sid>;"));
  const body = text?.replace(/"sid":"[^"]{20}"/, '"sid":"<sid>"');
  return { status, headers: { ...kept, ...(cookies && { "set-cookie": cookies }) }, body };
}

async function same(what, ask) {
  const [official, ours] = await Promise.all(servers.map(ask));
  assert.deepEqual(comparable(ours), comparable(official), what);
  return ours;
}

/** A GET whose answer may be compressed; resolves to its encoding and the text. */
function getCompressed(server, path, accepted) {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(server.url + path, { agent: false, headers: { "accept-encoding": accepted } }, async (response) => {
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      const encoding = response.headers["content-encoding"];
      const decode = { gzip: gunzipSync, deflate: inflateSync }[encoding] ?? ((bytes) => bytes);
      resolve({ status: response.statusCode, encoding, text: decode(Buffer.concat(chunks)).toString() });
    });
    outgoing.on("error", reject).end();
  });
}

async function open(server) {
  const response = await request(server, { query: OPEN });
  return JSON.parse(response.text.slice(1)).sid;
}

describe("options", () => {
  for (const origin of ORIGINS) {
    const headers = origin ? { origin } : {};

    test(`answers to requests from ${origin ?? "no origin"}`, async () => {
      const opened = await same("open", (server) => request(server, { query: OPEN, headers }));
      assert.match(opened.headers["set-cookie"][0], /^affinity=.{20}; Max-Age=3600; Path=\/; HttpOnly; Secure; SameSite=None$/);
      for (const path of ["/socket.io", "/socket.io/", "/socket.io/below"]) {
        await same(path, (server) => request(server, { path, query: OPEN, headers }));
      }
      await same("no transport", (server) => request(server, { query: "EIO=4", headers }));
      await same("no handshake", (server) => request(server, { method: "POST", query: OPEN, headers }));
      await same("elsewhere", (server) => request(server, { path: "/elsewhere", query: OPEN, headers }));
      const sids = new Map();
      await same("post", async (server) => {
        sids.set(server, await open(server));
        return request(server, { method: "POST", query: `${OPEN}&sid=${sids.get(server)}`, headers, body: "40" });
      });
      await same("poll", (server) => request(server, { query: `${OPEN}&sid=${sids.get(server)}`, headers }));
    });

    test(`preflights from ${origin ?? "no origin"}`, async () => {
      for (const asked of [{}, { "access-control-request-headers": "x-a, x-b" }]) {
        const preflight = { method: "OPTIONS", query: OPEN, headers: { ...headers, ...asked } };
        await same("preflight", (server) => request(server, preflight));
      }
    });

    test(`websockets from ${origin ?? "no origin"}`, async () => {
      const accepted = async (server) => {
        const response = await requestWebSocket(server, "EIO=4&transport=websocket", headers);
        response.socket.destroy();
        return response;
      };
      await same("accepted", accepted);
      await same("refused", (server) => requestWebSocket(server, "EIO=4&transport=none", headers));
    });
  }

  test("long polls are compressed in what the client accepts", async () => {
    for (const accepted of ["gzip, deflate, br", "deflate, gzip", "gzip;q=0.1, deflate", "br", "identity", "*", "gzip;q=0"]) {
      const answers = servers.map(async (server) => {
        const query = `${OPEN}&sid=${await open(server)}`;
        const path = `/socket.io/?${query}`;
        await request(server, { method: "POST", query, body: "40" });
        await request(server, { query });
        await request(server, { method: "POST", query, body: `421["echo","${"long ".repeat(400)}"]` });
        let text = "";
        let encoding;
        while (!text.includes("43")) {
          const polled = await getCompressed(server, path, accepted);
          assert.equal(polled.status, 200);
          text += polled.text;
          encoding = polled.encoding;
        }
        return { encoding, echoed: text.slice(text.indexOf("431")) };
      });
      const [official, ours] = await Promise.all(answers);
      assert.deepEqual(ours, official, accepted);
    }
  });

  test("the client bundle is compressed in what the client accepts", async () => {
    for (const accepted of ["gzip", "deflate", "identity"]) {
      const path = "/socket.io/socket.io.min.js";
      const [official, ours] = await Promise.all(servers.map((server) => getCompressed(server, path, accepted)));
      assert.equal(ours.encoding, official.encoding);
      assert.ok(ours.text === official.text, "the bundles differ");
    }
  });

  test("a known version of the client bundle is not sent again", async () => {
    const { headers } = await request(servers[1], { path: "/socket.io/socket.io.js" });
    for (const tag of [headers.etag, `W/${headers.etag}`]) {
      const asked = { path: "/socket.io/socket.io.js", headers: { "if-none-match": tag } };
      const answer = await same(tag, (server) => request(server, asked));
      assert.equal(answer.status, 304);
    }
  });
});
