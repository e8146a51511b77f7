// Sessions by WebSocket: Engine.IO's packets and RFC 6455's frames, good and bad; and the upgrade from polling.

import { frame } from "../../lib/raw.mjs";
import { named } from "./http.mjs";

const CONNECT = { frame: "40", answer: "40{" };

/** Frames on a session that has joined nothing. */
const raw = (...frames) => async (node, tape) => tape.frames(await tape.open(node), frames, CONNECT);

/** Bytes on a bare WebSocket; what is sent until the end, without the handshake. */
const bytes = (...chunks) => async (node, tape) => {
  const tcp = await tape.tcp(node);
  await tcp.until("the open packet", () => tcp.received.includes("}"));
  tcp.received = Buffer.alloc(0);
  chunks.forEach((chunk) => tcp.write(chunk));
  await tcp.end();
  tape.note("received", tcp.received);
};

/** A session that polls, and a WebSocket that probes it. */
const probe = (...frames) => async (node, tape) => {
  const session = await tape.joinPolling(node);
  const socket = await tape.upgrade(session);
  await tape.frames(socket, frames, undefined);
  await tape.polls(session);
};

export const scripts = {
  ...named("engine packet", {
    open: raw("0"),
    "open with a payload": raw('0{"sid":"x"}'),
    close: raw("1"),
    ping: raw("2"),
    "ping with a payload": raw("2probe"),
    pong: raw("3"),
    "pong with a payload": raw("3probe"),
    "empty message": raw("4"),
    upgrade: raw("5"),
    noop: raw("6"),
    "of type 7": raw("7"),
    "of type 9": raw("9hello"),
    "of no type": raw("abc"),
    "empty frame": raw(""),
    "empty binary frame": raw(Buffer.alloc(0)),
    "binary frame": raw(Buffer.from([1])),
  }),
  ...named("frame", {
    "not masked": bytes(frame("3", { masked: false })),
    "with reserved bits": bytes(frame("3", { reserved: 4 })),
    "with the compression bit": bytes(frame("3", { reserved: 4 })),
    "of opcode 3": bytes(frame("3", { opcode: 3 })),
    "of opcode 11": bytes(frame("3", { opcode: 11 })),
    "control, too long": bytes(frame("x".repeat(126), { opcode: 9 })),
    "control, in fragments": bytes(frame("x", { opcode: 9, fin: false })),
    "continuing nothing": bytes(frame("x", { opcode: 0 })),
    "starting inside a message": bytes(frame("4", { fin: false }), frame("4")),
    "of bad UTF-8": bytes(frame(Buffer.from([0x34, 0xff, 0xfe]))),
    "claiming too much": bytes(frame("x", { length: 1_000_001 })),
    "closing in one byte": bytes(frame("x", { opcode: 8 })),
    "closing with 1005": bytes(frame(Buffer.from([1005 >> 8, 1005 & 0xff]), { opcode: 8 })),
    "closing with 999": bytes(frame(Buffer.from([999 >> 8, 999 & 0xff]), { opcode: 8 })),
    "closing with bad UTF-8": bytes(frame(Buffer.from([1000 >> 8, 1000 & 0xff, 0xff]), { opcode: 8 })),
    "closing with nothing": bytes(frame("", { opcode: 8 })),
    "closing with 1000": bytes(frame(Buffer.from([1000 >> 8, 1000 & 0xff]), { opcode: 8 })),
    "closing with 1001 and a reason": bytes(frame(Buffer.concat([Buffer.from([1001 >> 8, 1001 & 0xff]), Buffer.from("bye")]), { opcode: 8 })),
    "closing with 4000": bytes(frame(Buffer.from([4000 >> 8, 4000 & 0xff]), { opcode: 8 })),
    "ping, then close": bytes(frame("are you there", { opcode: 9 }), frame("", { opcode: 8 })),
    "pong, then close": bytes(frame("unasked", { opcode: 10 }), frame("", { opcode: 8 })),
    "in fragments, then close": bytes(frame("4", { fin: false }), frame("0", { opcode: 0 }), frame("", { opcode: 8 })),
  }),
  ...named("probe", {
    "with another word": probe("2wrong"),
    "with no word": probe("2"),
    "with a pong": probe("3probe"),
    "with a message": probe('42["echo"]'),
    "with an unknown packet": probe("abc"),
    "with nothing": probe(""),
    "with an upgrade at once": async (node, tape) => {
      const session = await tape.joinPolling(node);
      const socket = await tape.upgrade(session);
      await tape.frames(socket, ["5"]);
      await tape.exchange("poll", session.get());
    },
    "twice, then upgrade": async (node, tape) => {
      const session = await tape.joinPolling(node);
      const socket = await tape.upgrade(session);
      await tape.frames(socket, ["2probe", "2probe", "5"]);
    },
    "then polling": async (node, tape) => {
      const session = await tape.joinPolling(node);
      const socket = await tape.upgrade(session);
      socket.send("2probe");
      tape.note("frame", (await socket.take(1))[0]);
      await tape.exchange("poll", session.get());
      await tape.frames(socket, ["5", '421["echo",1]']);
      await tape.exchange("poll after the upgrade", session.get());
      await tape.exchange("post after the upgrade", session.post("3"));
      await tape.frames(socket, ['422["echo",2]']);
    },
    "while another one probes": async (node, tape) => {
      const session = await tape.joinPolling(node);
      const socket = await tape.upgrade(session);
      socket.send("2probe");
      tape.note("frame", (await socket.take(1))[0]);
      const late = await tape.upgrade(session);
      await tape.frames(late, [], undefined);
      await tape.frames(socket, ["5"]);
    },
    "of a session that is upgraded": async (node, tape) => {
      const session = await tape.joinPolling(node);
      const socket = await tape.upgrade(session);
      await tape.frames(socket, ["2probe", "5"]);
      const late = await tape.upgrade(session);
      await tape.frames(late, ["2probe"], undefined);
      await tape.frames(socket, ['422["echo",2]']);
    },
  }),
  ...named("other transport", {
    "polling a websocket session": async (node, tape) => {
      const socket = await tape.join(node);
      await tape.ask(node, { query: `EIO=4&transport=polling&sid=${socket.sid}` }, "poll");
      await tape.ask(node, { method: "POST", query: `EIO=4&transport=polling&sid=${socket.sid}`, body: "3" }, "post");
      await tape.frames(socket, []);
    },
    "websocket without an upgrade to a polling session": async (node, tape) => {
      const session = await tape.joinPolling(node);
      await tape.ask(node, { query: `EIO=4&transport=websocket&sid=${session.sid}` }, "get");
      await tape.polls(session);
    },
    "another version than the session's": async (node, tape) => {
      const session = await tape.joinPolling(node);
      await tape.ask(node, { query: `EIO=3&transport=polling&sid=${session.sid}` }, "get");
      await tape.ask(node, { query: `transport=polling&sid=${session.sid}` }, "get without");
      await tape.polls(session);
    },
  }),
};
