// The application of the shared scenarios on the official server; `../../src/bin/scenarios.rs` is the same on Flotilla.

import { Adapter, SessionAwareAdapter } from "socket.io-adapter";

/** How long `ask` waits, and how long `ask briefly` does. */
const PATIENT = 5000;
const BRIEF = 200;

/** What this application needs of the official server beyond the relay's settings. */
export const settings = { connectionStateRecovery: {} };

/** `relay` adds the relay's verbs to a namespace. */
export function register(io, relay) {
  // The official server recovers in all namespaces or in none; only in this one do offsets belong behind arguments.
  io.adapter(function (namespace) {
    return namespace.name === "/recoverable" ? new SessionAwareAdapter(namespace) : new Adapter(namespace);
  });
  io.of("/guarded").use((socket, next) => {
    if (socket.handshake.auth.token === "open sesame") return next();
    next(Object.assign(new Error("not authorized"), { data: { code: 7 } }));
  });
  relay(io.of("/chat"));
  relay(io.of("/recoverable"));
  for (const name of ["/", "/chat", "/guarded", "/recoverable"]) serve(io.of(name));
}

function serve(namespace) {
  namespace.on("connection", (socket) => {
    const ask = async (timeout, event, data, ack) => {
      try {
        ack(await socket.timeout(timeout).emitWithAck(event, ...data));
      } catch {
        ack({ error: "timeout" });
      }
    };
    socket.on("whoami", (ack) => ack(socket.id));
    socket.on("auth", (ack) => ack(socket.handshake.auth));
    socket.on("please", (event, ...data) => socket.emit(event, ...data));
    socket.on("upload", (file) => socket.emit("download", file));
    socket.on("ask", (event, ...rest) => ask(PATIENT, event, rest.slice(0, -1), rest.at(-1)));
    socket.on("ask briefly", (event, ack) => ask(BRIEF, event, [], ack));
    socket.on("ask room", async (room, data, ack) => {
      ack((await namespace.to(room).timeout(PATIENT).emitWithAck("question", data)).sort());
    });
    socket.on("members", (room, expected, ack) => {
      const members = [...(namespace.adapter.rooms.get(room) ?? [])];
      ack(JSON.stringify(members.sort()) === JSON.stringify(expected.sort()));
    });
    socket.on("kick", (close) => socket.disconnect(close));
    socket.on("kick room", (room) => namespace.in(room).disconnectSockets(true));
    socket.on("disconnect", (reason) => namespace.emit("gone", socket.id, reason));
  });
}
