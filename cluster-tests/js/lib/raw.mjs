// Engine.IO spoken by hand: a session by polling, a session by WebSocket, and bare TCP.

import { connect as connectTcp } from "node:net";
import { randomBytes } from "node:crypto";
import { WebSocket } from "ws";
import { request } from "./http.mjs";
import { until, within } from "./until.mjs";
import { printVersions } from "./versions.mjs";

printVersions("ws");

export const SEPARATOR = "\x1e";
const EIO4 = "EIO=4&transport=";

/** A session whose requests the test makes one by one. */
export class Polling {
  /** Packets that came, for failure messages. */
  seen = [];
  /** Packets that came with a payload but were not asked for yet. */
  ready = [];

  constructor(node, handshake, headers) {
    this.node = node;
    this.handshake = handshake;
    this.sid = handshake.sid;
    this.headers = headers;
  }

  static async open(node) {
    const response = await request(node, { query: `${EIO4}polling` });
    if (response.status !== 200 || response.text[0] !== "0") throw new Error(`no handshake: ${JSON.stringify(response)}`);
    return new Polling(node, JSON.parse(response.text.slice(1)), response.headers);
  }

  /** Opens a session and joins a namespace; the CONNECT answer is taken. */
  static async join(node, namespace = "/") {
    const session = await Polling.open(node);
    await session.post(namespace === "/" ? "40" : `40${namespace},`);
    const [answer] = await session.take(1);
    if (!answer.startsWith("40")) throw new Error(`CONNECT was answered with ${answer}`);
    session.id = JSON.parse(answer.slice(answer.indexOf("{"))).sid;
    return session;
  }

  get query() {
    return `${EIO4}polling&sid=${this.sid}`;
  }

  get(options) {
    return request(this.node, { query: this.query, ...options });
  }

  post(body, options) {
    return request(this.node, { method: "POST", query: this.query, body, ...options });
  }

  /** The next `count` packets other than pings; polls for them, and answers the pings. */
  async take(count) {
    while (this.ready.length < count) {
      const response = await this.get();
      if (response.status !== 200) throw new Error(`poll: ${response.status} ${response.text}; so far ${JSON.stringify(this.seen)}`);
      for (const packet of response.text.split(SEPARATOR)) {
        this.seen.push(packet);
        if (packet === "2") await this.post("3");
        else this.ready.push(packet);
      }
    }
    return this.ready.splice(0, count);
  }

  /** Waits until the server knows this session no longer. A pong tells: it changes nothing while there is one. */
  gone(patience) {
    return until(
      `session ${this.sid} to be gone`,
      async () => {
        const { status, text } = await this.post("3");
        return status === 400 && text === '{"code":1,"message":"Session ID unknown"}';
      },
      () => this.seen,
      patience,
    );
  }

  /**
   * Polls until the server says that the session is over: with a close packet in the payload (it keeps one
   * for the next GET, when none is pending as it closes) or by not knowing the session. Resolves to the packets.
   */
  async ended() {
    for (;;) {
      const { status, text } = await this.get();
      if (status === 400) return this.seen;
      const packets = text.split(SEPARATOR);
      this.seen.push(...packets);
      if (packets.at(-1) === "1") return this.seen;
      if (packets.includes("2")) await this.post("3");
    }
  }

  /** Fails unless the session still carries messages; it must have joined the main namespace. */
  async works() {
    const id = Math.floor(Math.random() * 1e9);
    const answered = await this.post(`42${id}["echo","works"]`);
    if (answered.status !== 200) throw new Error(`post: ${answered.status} ${answered.text}`);
    for (;;) {
      const [packet] = await this.take(1);
      if (packet === `43${id}["works"]`) return;
    }
  }
}

/** A WebSocket whose frames the test reads one by one; pings are answered unless it is `silent`, from the start or later. */
export class Socket {
  frames = [];
  /** `{code, reason}` once the socket is closed. */
  closed = undefined;

  constructor(node, query, { silent = false, ...options } = {}) {
    const url = `${node.url.replace("http", "ws")}/socket.io/?${query}`;
    this.silent = silent;
    this.ws = new WebSocket(url, { perMessageDeflate: false, ...options });
    this.ws.on("message", (data, isBinary) => {
      const frame = isBinary ? data : data.toString();
      if (frame === "2" && !this.silent) this.ws.send("3");
      else this.frames.push(frame);
    });
    this.ws.on("close", (code, reason) => (this.closed = { code, reason: reason.toString() }));
    // A refused or broken connection is seen as `closed`; ws reports it as an error first.
    this.ws.on("error", (error) => (this.error = error.message));
  }

  /** A session of its own, after the handshake. */
  static async open(t, node, options) {
    const socket = new Socket(node, `${EIO4}websocket`, options);
    t.after(() => socket.ws.terminate());
    const [open] = await socket.take(1);
    socket.handshake = JSON.parse(open.slice(1));
    socket.sid = socket.handshake.sid;
    return socket;
  }

  /** A session that has joined a namespace. */
  static async join(t, node, namespace = "/", options) {
    const socket = await Socket.open(t, node, options);
    socket.send(namespace === "/" ? "40" : `40${namespace},`);
    const [answer] = await socket.take(1);
    if (!answer.startsWith("40")) throw new Error(`CONNECT was answered with ${answer}`);
    socket.id = JSON.parse(answer.slice(answer.indexOf("{"))).sid;
    return socket;
  }

  /** A WebSocket for a session that polls. */
  static async upgrade(t, session) {
    const socket = new Socket(session.node, `${EIO4}websocket&sid=${session.sid}`);
    t.after(() => socket.ws.terminate());
    await within("the WebSocket to open", new Promise((resolve) => socket.ws.once("open", resolve)), () => socket.state());
    return socket;
  }

  send(...frames) {
    frames.forEach((frame) => this.ws.send(frame));
  }

  /** The next `count` frames. */
  async take(count) {
    await until(`${count} frames`, () => this.frames.length >= count || this.closed, () => this.state());
    if (this.frames.length < count) throw new Error(`closed before ${count} frames came: ${JSON.stringify(this.state())}`);
    return this.frames.splice(0, count);
  }

  /** Waits for the end; resolves to `{code, reason}`. */
  async end() {
    await until("the server to close", () => this.closed, () => this.state());
    return this.closed;
  }

  /** Fails unless the session still carries messages; it must have joined the main namespace. */
  async works() {
    const id = Math.floor(Math.random() * 1e9);
    this.send(`42${id}["echo","works"]`);
    await until("its echo", () => this.frames.includes(`43${id}["works"]`) || this.closed, () => this.state());
    if (this.closed) throw new Error(`closed: ${JSON.stringify(this.state())}`);
    this.frames = this.frames.filter((frame) => frame !== `43${id}["works"]`);
  }

  state() {
    return { closed: this.closed, error: this.error, readyState: this.ws.readyState, frames: this.frames.slice(-5) };
  }
}

/** A TCP connection to the address of a url; the test reads `received` and `ended`. */
export class Tcp {
  received = Buffer.alloc(0);
  ended = false;

  constructor(t, url) {
    const { hostname, port } = new URL(url);
    this.socket = connectTcp({ host: hostname, port: Number(port) });
    this.socket.on("data", (chunk) => (this.received = Buffer.concat([this.received, chunk])));
    this.socket.on("close", () => (this.ended = true));
    // A reset is one of the ways in which a server ends a connection.
    this.socket.on("error", () => (this.ended = true));
    t.after(() => this.socket.destroy());
  }

  /** A connection on which the WebSocket handshake of a new session is done. */
  static async webSocket(t, node) {
    const tcp = new Tcp(t, node.url);
    tcp.write(
      `GET /socket.io/?${EIO4}websocket HTTP/1.1\r\nHost: ${new URL(node.url).host}\r\nConnection: Upgrade\r\n` +
        `Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`,
    );
    await tcp.until("the handshake", () => tcp.received.includes('"maxPayload"'));
    tcp.received = tcp.received.subarray(tcp.received.indexOf("\r\n\r\n") + 4);
    return tcp;
  }

  write(data) {
    this.socket.write(data);
  }

  until(what, probe) {
    return until(what, probe, () => ({ ended: this.ended, received: this.received.toString("latin1").slice(-300) }));
  }

  end() {
    return this.until("the server to close", () => this.ended);
  }
}

/** One WebSocket frame as a client writes it, with any of its rules broken on request. */
export function frame(payload, { opcode = 1, fin = true, reserved = 0, masked = true, length } = {}) {
  const data = Buffer.from(payload);
  const claimed = length ?? data.length;
  const head = [(fin ? 0x80 : 0) | (reserved << 4) | opcode];
  const mask = masked ? randomBytes(4) : Buffer.alloc(0);
  const bit = masked ? 0x80 : 0;
  if (claimed < 126) head.push(bit | claimed);
  else if (claimed < 65_536) head.push(bit | 126, claimed >> 8, claimed & 0xff);
  else {
    const wide = Buffer.alloc(8);
    wide.writeBigUInt64BE(BigInt(claimed));
    head.push(bit | 127, ...wide);
  }
  const body = masked ? data.map((byte, index) => byte ^ mask[index % 4]) : data;
  return Buffer.concat([Buffer.from(head), mask, body]);
}
