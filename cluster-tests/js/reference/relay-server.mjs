// The relay application on the official server, on three ports: what Flotilla's nodes are compared with.
//
// One process stands for three nodes, so that rooms and sessions span "nodes" by being shared. Started
// as `relay-server.mjs --exec COMMAND…`, it takes the place of the `cluster` runner: the command finds
// the ports in FLOTILLA_NODES, FLOTILLA_REFERENCE is set, and its exit code is this program's. The settings that the suites need
// come from the same environment variables as a node's.

import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server } from "socket.io";
import { milliseconds } from "../lib/milliseconds.mjs";
import { parser } from "../lib/parser.mjs";
import { printVersions } from "../lib/versions.mjs";

const PAGE = new URL("../../../node/src/apps/relay/chat.html", import.meta.url);

/** With REFERENCE_APP=scenarios, the application of the shared scenarios beside the relay. */
const app = process.env.REFERENCE_APP === "scenarios" ? await import("./scenario-app.mjs") : undefined;
const io = new Server({ ...engineSettings(), ...app?.settings });

/** One session for each connection, whatever the number of its namespaces. */
const sessions = new WeakMap();

function session(socket) {
  if (!sessions.has(socket.conn)) sessions.set(socket.conn, {});
  return sessions.get(socket.conn);
}

function matches(filter, session) {
  return Object.entries(filter).every(([key, value]) => Object.hasOwn(session, key) && session[key] === value);
}

function isFilter(value) {
  const isScalar = (each) => each === null || typeof each !== "object";
  return typeof value === "object" && value !== null && !Array.isArray(value) && Object.values(value).every(isScalar);
}

function relay(namespace) {
  namespace.on("connection", (socket) => {
    // A verb whose arguments have the wrong shape is dropped; no client may harm the server with one.
    const verb = (name, shape, handler) => {
      socket.on(name, (...args) => {
        const ack = typeof args.at(-1) === "function" ? args.pop() : () => {};
        if (!shape.every((fits, index) => index < args.length && fits(args[index]))) return ack({ error: "BadArguments" });
        try {
          ack(...(handler(...args) ?? []));
        } catch (error) {
          // Data nested 100,000 deep exhausts the stack of the official encoder, and would end the process here.
          if (!(error instanceof RangeError)) throw error;
          ack({ error: "TooDeep" });
        }
      });
    };
    const text = (value) => typeof value === "string";
    const any = () => true;

    verb("echo", [], (...data) => data);
    verb("join", [text], (room) => void socket.join(room));
    verb("leave", [text], (room) => void socket.leave(room));
    verb("bcast", [any], (data) => void namespace.emit("msg", data));
    verb("room", [text, any], (room, data) => void namespace.to(room).emit("msg", data));
    verb("dm", [text, any], (id, data) => void namespace.to(id).emit("msg", data));
    verb("login", [any], (name) => void (session(socket).username = name));
    verb("who", [text], (room) => [[...(namespace.adapter.rooms.get(room) ?? [])]]);
    verb("tell", [isFilter, any], (filter, data) => {
      for (const each of namespace.sockets.values()) {
        if (matches(filter, session(each))) each.emit("msg", data);
      }
    });
  });
}

function engineSettings() {
  const environment = process.env;
  const origins = JSON.parse(environment.FLOTILLA_ENGINE__CORS_ORIGINS ?? "[]");
  return {
    ...parser,
    pingInterval: milliseconds(environment.FLOTILLA_ENGINE__PING_INTERVAL ?? "25s"),
    pingTimeout: milliseconds(environment.FLOTILLA_ENGINE__PING_TIMEOUT ?? "20s"),
    upgradeTimeout: milliseconds(environment.FLOTILLA_ENGINE__UPGRADE_TIMEOUT ?? "10s"),
    // As deploy/local.toml has it.
    allowEIO3: environment.FLOTILLA_ENGINE__ALLOW_EIO3 !== "false",
    connectTimeout: milliseconds(environment.FLOTILLA_SOCKETIO__CONNECT_TIMEOUT ?? "45s"),
    ...(origins.length > 0 && { cors: { origin: origins.includes("*") ? "*" : origins, credentials: true } }),
  };
}

function listen(id) {
  const http = createServer((request, response) => {
    if (request.url.split("?")[0] !== "/") return response.writeHead(404).end();
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(readFileSync(PAGE));
  });
  io.attach(http);
  return new Promise((resolve) => {
    http.listen(0, "127.0.0.1", () => resolve({ id, url: `http://127.0.0.1:${http.address().port}` }));
  });
}

relay(io.of("/"));
relay(io.of("/relay-direct"));
app?.register(io, relay);
const nodes = await Promise.all(["n1", "n2", "n3"].map(listen));
const list = join(mkdtempSync(join(tmpdir(), "relay-")), "nodes.json");
writeFileSync(list, JSON.stringify(nodes));
printVersions("socket.io", "engine.io", "socket.io-parser");
console.log(`${nodes.map((node) => node.url).join(" ")}\n${list}`);

const at = process.argv.indexOf("--exec");
if (at !== -1) {
  const [command, ...rest] = process.argv.slice(at + 1);
  const child = spawn(command, rest, { stdio: "inherit", env: { ...process.env, FLOTILLA_NODES: list, FLOTILLA_REFERENCE: "" } });
  child.on("exit", (code) => process.exit(code ?? 1));
}
