// Engine.IO 3 and Socket.IO 4, by hand: handshakes, payloads in their two forms, and each rule broken.

import { request } from "../../lib/http.mjs";
import { Socket } from "../../lib/raw.mjs";
import { named } from "./http.mjs";

/** A session of generation 3 by polling; requests are noted as they are made. */
class Session {
  constructor(node, tape, parameters) {
    this.node = node;
    this.tape = tape;
    this.query = `EIO=3&transport=polling${parameters}`;
  }

  static async open(node, tape, parameters = "&b64=1") {
    const session = new Session(node, tape, parameters);
    const response = await request(node, { query: session.query });
    session.sid = /"sid":"([\w-]{20})"/.exec(response.text)?.[1];
    tape.answer("handshake", response);
    session.query += `&sid=${session.sid}`;
    return session;
  }

  /** A session whose CONNECT, which it did not ask for, has come. */
  static async join(node, tape, parameters) {
    const session = await Session.open(node, tape, parameters);
    await session.get();
    return session;
  }

  get(options) {
    return this.tape.exchange("poll", request(this.node, { query: this.query, ...options }));
  }

  post(body, options) {
    return this.tape.exchange("post", request(this.node, { method: "POST", query: this.query, body, ...options }));
  }
}

/** Once connected, posts bodies and a fence, and notes what polls bring until its answer or the end, however many they are. */
const posted = (...bodies) => async (node, tape) => {
  const session = await Session.join(node, tape);
  for (const body of bodies) await session.post(body);
  await session.post('21:42999["echo","fence"]');
  const heard = [];
  for (;;) {
    const response = await request(node, { query: session.query });
    if (response.status !== 200) {
      tape.note("polled", heard.join(""));
      return tape.answer("poll", response);
    }
    heard.push(response.text);
    if (response.text.includes("43999")) return tape.note("polled", heard.join(""));
  }
};

/** Frames on a WebSocket session of generation 3, which has joined `/` without asking. */
const frames = (...list) => async (node, tape) => {
  const socket = new Socket(node, "EIO=3&transport=websocket", { silent: true });
  tape.after(() => socket.ws.terminate());
  const [open, connected] = await socket.take(2);
  tape.note("open", open);
  tape.note("connected", connected);
  await tape.frames(socket, list);
};

const slot = (num) => `{"_placeholder":true,"num":${num}}`;
const four = (...bytes) => Buffer.from([4, ...bytes]);

export const scripts = {
  ...named("EIO3 handshake", {
    polling: (node, tape) => Session.open(node, tape, "&b64=1"),
    "polling in binary": (node, tape) => Session.open(node, tape, ""),
    "polling, version missing": async (node, tape) => tape.ask(node, { query: "transport=polling&b64=1" }),
    "polling, version 2": async (node, tape) => tape.ask(node, { query: "EIO=2&transport=polling&b64=1" }),
    "by POST": async (node, tape) => tape.ask(node, { method: "POST", query: "EIO=3&transport=polling&b64=1" }),
    "to an unknown transport": async (node, tape) => tape.ask(node, { query: "EIO=3&transport=abc" }),
    "of an unknown session": async (node, tape) => tape.ask(node, { query: "EIO=3&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA" }),
    "then generation 4": async (node, tape) => {
      const session = await Session.open(node, tape);
      await tape.ask(node, { query: `EIO=4&transport=polling&sid=${session.sid}` }, "as 4");
      await session.get();
    },
    websocket: frames(),
  }),
  ...named("EIO3 payload", {
    "of one packet": posted('15:421["echo","x"]'.replace("15", String('421["echo","x"]'.length))),
    "of two packets": posted('13:421["echo",1]13:422["echo",2]'),
    "counted in UTF-16": posted(`${'421["echo","ü🚢"]'.length}:421["echo","ü🚢"]`),
    "of base64": posted(`${`451-1["echo",${slot(0)}]`.length}:451-1["echo",${slot(0)}]10:b4AQIDBA==`),
    "of a ping": posted("1:2"),
    "of a ping with a payload": posted("6:2probe"),
    "of a pong": posted("1:3"),
    "of a close packet": posted("1:1"),
    "of an unknown type": posted("3:abc"),
    "whose length is too long": posted('99:421["echo",1]'),
    "whose length is too short": posted('5:421["echo",1]'),
    "whose length is no number": posted('x:421["echo",1]'),
    "whose length is missing": posted('421["echo",1]'),
    "of length zero": posted("0:"),
    "of nothing": posted(""),
    "in the form of generation 4": posted('421["echo",1]\x1e422["echo",2]'),
    "in binary": async (node, tape) => {
      const session = await Session.join(node, tape, "");
      const event = Buffer.from(`451-1["echo",${slot(0)}]`);
      const digits = (length) => Array.from(String(length), Number);
      const body = Buffer.concat([
        Buffer.from([0, ...digits(event.length), 255]), event,
        Buffer.from([1, ...digits(5), 255]), four(1, 2, 3, 4),
      ]);
      await session.post(body, { headers: { "content-type": "application/octet-stream" } });
      await session.get();
    },
    "in bad binary": async (node, tape) => {
      const session = await Session.join(node, tape, "");
      await session.post(Buffer.from([7, 1, 255, 50]), { headers: { "content-type": "application/octet-stream" } });
      await session.post('21:42999["echo","fence"]');
      await session.get();
    },
  }),
  ...named("EIO3 frame", {
    "of an event": frames('421["echo",1]'),
    "of a ping": frames("2"),
    "of a ping with a payload": frames("2hello"),
    "of a pong": frames("3"),
    "of a binary event": frames(`451-1["echo",${slot(0)}]`, four(1, 2, 3)),
    "that is binary and of no type": frames(`451-1["echo",${slot(0)}]`, Buffer.from([9, 1])),
    "that is binary and empty": frames(Buffer.alloc(0)),
    "that is empty": frames(""),
    "of an unknown type": frames("abc"),
    "of a close packet": frames("1"),
  }),
  ...named("SIO4", {
    "CONNECT to a namespace": frames("40/relay-direct"),
    "CONNECT to a namespace with a comma": frames("40/relay-direct,"),
    "CONNECT to a namespace with a query": frames("40/relay-direct?token=abc"),
    "CONNECT to a namespace with a query and a comma": frames("40/relay-direct?token=abc,"),
    "CONNECT to an unknown namespace": frames("40/nowhere"),
    "CONNECT to an unknown namespace with a query": frames("40/nowhere?a=b,"),
    "CONNECT to the main one again": frames("40"),
    "an event to a namespace that was not joined": frames('42/relay-direct,["echo",1]'),
    "an event in a namespace": frames("40/relay-direct,", '42/relay-direct,5["echo",1]'),
    "an ERROR": frames('44"x"'),
    "an event whose payload is an object": frames("42{}"),
    "a reserved name": frames('42["disconnect"]'),
    "an ack that nobody asked for": frames("4399[]"),
    "an ack to an event": frames('42["dm","nobody",1]'),
  }),
};
