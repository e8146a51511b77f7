// A socket.io-client on one node, with an inbox and questions that fail readably.

import { randomUUID } from "node:crypto";
import { io } from "socket.io-client";
import { parser } from "./parser.mjs";
import { until, within } from "./until.mjs";
import { printVersions } from "./versions.mjs";

printVersions("socket.io-client", "engine.io-client", "socket.io-parser");

/** The three ways in which a client may travel; suites run once for each. */
export const MODES = {
  "polling only": ["polling"],
  "websocket only": ["websocket"],
  upgrade: ["polling", "websocket"],
};

/** A name that no other test uses: the suites share one cluster, and `bcast` reaches everyone. */
export function unique(prefix) {
  return `${prefix}-${randomUUID().slice(0, 8)}`;
}

export class Client {
  /** What came as `msg`, in the order in which it came. */
  inbox = [];
  /** Why this socket was disconnected, each time it was. */
  disconnects = [];
  /** Messages of `connect_error`, each time there was one. */
  refusals = [];

  constructor(socket, where) {
    this.socket = socket;
    this.where = where;
    socket.on("msg", (...data) => this.inbox.push(data.length === 1 ? data[0] : data));
    socket.on("disconnect", (reason) => this.disconnects.push(reason));
    socket.on("connect_error", (error) => this.refusals.push(error.message));
  }

  get id() {
    return this.socket.id;
  }

  get transport() {
    return this.socket.io.engine?.transport?.name;
  }

  /** Emits one of the relay's verbs and resolves to the arguments of its ack. */
  ask(verb, ...args) {
    const answer = new Promise((resolve) => this.socket.emit(verb, ...args, (...got) => resolve(got)));
    return within(`the ack of ${verb} from ${this.where}`, answer, () => this.state());
  }

  /** `ask` for a verb that must be acked with nothing. */
  async done(verb, ...args) {
    const got = await this.ask(verb, ...args);
    if (got.length !== 0) throw new Error(`${verb} was acked with ${JSON.stringify(got)}, not with nothing`);
  }

  /** Emits without asking for an ack. */
  emit(verb, ...args) {
    this.socket.emit(verb, ...args);
  }

  /** Messages of this tag, in order. Tests send `{tag, …}` so as not to see each other's. */
  tagged(tag) {
    return this.inbox.filter((data) => data?.tag === tag);
  }

  until(what, probe) {
    return until(`${what} at ${this.where}`, () => probe(this), () => this.state());
  }

  /** Waits for `count` messages of this tag; they are resolved to. */
  async expectTagged(tag, count) {
    await this.until(`${count} messages tagged ${tag}`, () => this.tagged(tag).length >= count);
    return this.tagged(tag);
  }

  connected() {
    return this.until("a connection", () => this.socket.connected);
  }

  /** Another namespace on the same connection. */
  namespace(name, options) {
    return new Client(this.socket.io.socket(name, options), `${this.where} ${name}`);
  }

  close() {
    this.socket.disconnect();
    // Other namespaces of the manager would keep the connection, and so the test process, alive.
    this.socket.io._close();
  }

  state() {
    return {
      connected: this.socket.connected,
      id: this.id,
      transport: this.transport,
      disconnects: this.disconnects,
      refusals: this.refusals,
      messages: this.inbox.length,
      inbox: this.inbox.slice(-5),
    };
  }
}

/** Starts to connect; the test closes the client at its end. `t` is the test's context. */
export function dial(t, node, { transports = ["websocket"], namespace = "/", ...options } = {}) {
  const socket = io(node.url + namespace, { transports, forceNew: true, reconnectionDelay: 50, ...parser, ...options });
  const client = new Client(socket, `${node.id}${namespace} (${transports.join("+")})`);
  t.after(() => client.close());
  return client;
}

/** Connects to one node. */
export async function connect(t, node, options) {
  const client = dial(t, node, options);
  await client.connected();
  return client;
}

/** Connects one client to each of the nodes. */
export function connectAll(t, nodes, options) {
  return Promise.all(nodes.map((node) => connect(t, node, options)));
}

/**
 * Sends a last message to everyone and waits until each client has it: whatever `sender` sent before
 * has then arrived wherever it was going to, and what is not there will not come.
 */
export async function fence(sender, clients) {
  const tag = unique("fence");
  sender.emit("bcast", { tag });
  await Promise.all(clients.map((client) => client.expectTagged(tag, 1)));
}
