// What each option of Engine.IO and Socket.IO does to unmodified clients: on a node with the setting, and on the official
// server with its option of that name.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { describe, test } from "node:test";
import { Server } from "socket.io";
import { io } from "socket.io-client";
import io2 from "socket.io-client-2";
import msgpack from "socket.io-msgpack-parser";
import { startNode } from "../lib/own.mjs";
import { until, within } from "../lib/until.mjs";
import { printVersions } from "../lib/versions.mjs";

printVersions("socket.io", "socket.io-client", "socket.io-client-2");

const POLLING = { transports: ["polling"] };
const WEBSOCKET = { transports: ["websocket"] };

/** Each option: the official one, ours, and what clients have of it. */
const OPTIONS = {
  path: {
    official: { path: "/other" },
    settings: ["engine.path=/other"],
    async seen(client) {
      await works(client({ path: "/other" }));
      await fails(client());
    },
  },
  addTrailingSlash: {
    official: { addTrailingSlash: false },
    settings: ["engine.add_trailing_slash=false"],
    async seen(client) {
      await works(client({ ...POLLING, addTrailingSlash: false }));
      await works(client({ ...WEBSOCKET, addTrailingSlash: false }));
      await works(client(POLLING));
    },
  },
  "addTrailingSlash, as it is by default": {
    official: {},
    settings: [],
    async seen(client) {
      await works(client(POLLING));
      await fails(client({ ...POLLING, addTrailingSlash: false }));
    },
  },
  "transports, polling alone": {
    official: { transports: ["polling"] },
    settings: ['engine.transports=["polling"]'],
    async seen(client) {
      await fails(client(WEBSOCKET));
      await staysPolling(client());
    },
  },
  "transports, websocket alone": {
    official: { transports: ["websocket"] },
    settings: ['engine.transports=["websocket"]'],
    async seen(client) {
      await fails(client(POLLING));
      await works(client(WEBSOCKET));
      await works(client({ transports: ["polling", "websocket"], tryAllTransports: true }));
    },
  },
  allowUpgrades: {
    official: { allowUpgrades: false },
    settings: ["engine.allow_upgrades=false"],
    async seen(client) {
      await staysPolling(client());
      await works(client(WEBSOCKET));
    },
  },
  "pingInterval and pingTimeout": {
    official: { pingInterval: 60, pingTimeout: 15_000 },
    settings: ["engine.ping_interval=60ms", "engine.ping_timeout=15s"],
    async seen(client) {
      for (const transports of [POLLING, WEBSOCKET]) {
        const socket = client(transports);
        let pings = 0;
        socket.io.on("ping", () => (pings += 1));
        const told = handshake(socket);
        await works(socket);
        const { pingInterval, pingTimeout } = await told;
        assert.deepEqual([pingInterval, pingTimeout], [60, 15_000]);
        await until("five pings", () => pings >= 5);
        assert.ok(socket.connected);
      }
    },
  },
  maxHttpBufferSize: {
    official: { maxHttpBufferSize: 2000 },
    settings: ["engine.max_payload_bytes=2000"],
    async seen(client) {
      for (const transports of [POLLING, WEBSOCKET]) {
        const socket = client(transports);
        const told = handshake(socket);
        await works(socket);
        assert.equal((await told).maxPayload, 2000);
        // Client and server put no more into a body than that.
        const text = "x".repeat(600);
        const echoed = await Promise.all(Array.from({ length: 9 }, (_, n) => ask(socket, n, text)));
        assert.deepEqual(echoed, Array.from({ length: 9 }, (_, n) => [n, text]));
        const gone = new Promise((resolve) => socket.once("disconnect", resolve));
        socket.emit("echo", "x".repeat(2100));
        const reason = await within("the end", gone);
        assert.equal(reason, transports === POLLING ? "transport error" : "transport close");
      }
    },
  },
  cookie: {
    official: { cookie: { name: "affinity" } },
    settings: ['engine.cookie={name="affinity"}'],
    async seen(client) {
      const socket = client({ ...POLLING, withCredentials: true });
      await works(socket);
      // Where the client keeps its cookies in Node.js; it sends them with each poll.
      const jar = socket.io.engine._cookieJar;
      const cookie = new Map(jar.cookies).get("affinity");
      assert.equal(cookie.value, socket.io.engine.id);
    },
  },
  "allowEIO3, as it is by default": {
    official: {},
    settings: [],
    async seen(_client, older) {
      await fails(older(POLLING));
      await fails(older(WEBSOCKET));
    },
  },
  allowEIO3: {
    official: { allowEIO3: true },
    settings: ["engine.allow_eio3=true"],
    async seen(client, older) {
      await works(older(POLLING));
      await works(older(WEBSOCKET));
      await works(client());
    },
  },
  connectTimeout: {
    official: { connectTimeout: 300 },
    settings: ["socketio.connect_timeout=300ms"],
    async seen(client) {
      const stays = client();
      await works(stays);
      // A connection that joins no namespace.
      const { io: manager } = client({ ...WEBSOCKET, autoConnect: false, reconnection: false });
      const closed = new Promise((resolve) => manager.on("close", resolve));
      manager.open();
      assert.equal(await within("the end", closed), "transport close");
      await works(stays);
    },
  },
  upgradeTimeout: {
    official: { upgradeTimeout: 15_000 },
    settings: ["engine.upgrade_timeout=15s"],
    async seen(client) {
      const socket = client();
      await works(socket);
      await until("the upgrade", () => socket.io.engine.transport.name === "websocket");
      await works(socket);
    },
  },
  parser: {
    official: { parser: msgpack },
    settings: ["socketio.parser=msgpack"],
    async seen(client) {
      await works(client({ parser: msgpack }));
      await works(client({ ...POLLING, parser: msgpack }));
      const other = client({ ...WEBSOCKET, reconnection: false });
      const closed = new Promise((resolve) => other.io.on("close", resolve));
      await within("the end", closed);
    },
  },
  serveClient: {
    official: { serveClient: false },
    settings: ["socketio.serve_client=false"],
    async seen(client, _older, url) {
      await works(client());
      const answer = await fetch(`${url}/socket.io/socket.io.js`);
      assert.deepEqual([answer.status, await answer.json()], [400, { code: 0, message: "Transport unknown" }]);
    },
  },
};

async function startOfficial(options) {
  const http = createServer((_request, response) => response.writeHead(404).end());
  const server = new Server(http, options);
  server.on("connection", (socket) => socket.on("echo", (...args) => args.pop()?.(...args)));
  await new Promise((listening) => http.listen(0, "127.0.0.1", listening));
  return { url: `http://127.0.0.1:${http.address().port}`, stop: () => new Promise((closed) => server.close(closed)) };
}

const BASE = { forceNew: true, reconnectionDelay: 50 };

function ask(socket, ...args) {
  const answer = new Promise((resolve) => socket.emit("echo", ...args, (...echoed) => resolve(echoed)));
  return within("the echo", answer, () => ({ connected: socket.connected }));
}

async function works(socket) {
  assert.deepEqual(await ask(socket, 1, "ü"), [1, "ü"]);
}

async function fails(socket) {
  const failure = new Promise((resolve, reject) => {
    socket.on("connect", () => reject(new Error("it should not have connected")));
    for (const event of ["connect_error", "error"]) socket.on(event, resolve);
  });
  await within("the refusal", failure);
  socket.close();
}

async function staysPolling(socket) {
  const told = handshake(socket);
  await works(socket);
  assert.deepEqual((await told).upgrades, []);
  assert.equal(socket.io.engine.transport.name, "polling");
}

function handshake(socket) {
  const told = new Promise((resolve) => socket.io.engine.once("handshake", resolve));
  return within("the handshake", told);
}

for (const [name, { official, settings, seen }] of Object.entries(OPTIONS)) {
  describe(name, () => {
    for (const [kind, start] of [
      ["the official server", () => startOfficial(official)],
      ["a node", () => startNode(settings)],
    ]) {
      test(kind, async (t) => {
        const { url, stop } = await start();
        const sockets = [];
        const dial = (make) => (options) => {
          const socket = make(url, { ...BASE, ...options });
          sockets.push(socket);
          return socket;
        };
        t.after(async () => {
          for (const socket of sockets) {
            socket.io.reconnection?.(false);
            socket.close();
            socket.io.engine?.close();
          }
          await stop();
        });
        await seen(dial(io), dial(io2), url);
      });
    }
  });
}
