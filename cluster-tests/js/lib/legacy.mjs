// A socket.io-client of generation 2 (Engine.IO 3), under the same roof as those of generation 4.

import io from "socket.io-client-2";
import { Client } from "./client.mjs";
import { printVersions } from "./versions.mjs";

printVersions("socket.io-client-2");

/** The ways in which such a client may travel; text only is what it asks for where it cannot take bytes. */
export const LEGACY_MODES = {
  "polling only": { transports: ["polling"] },
  "websocket only": { transports: ["websocket"] },
  "websocket only, as text": { transports: ["websocket"], forceBase64: true },
  upgrade: { transports: ["polling", "websocket"] },
};

export class LegacyClient extends Client {
  /** What came as `error`, which is how this generation hears that a namespace refuses it. */
  errors = [];

  constructor(socket, where) {
    super(socket, where);
    socket.on("error", (error) => this.errors.push(error));
  }

  /** As the client computes it, and as no packet tells it. */
  get ownId() {
    const { nsp } = this.socket;
    return (nsp === "/" ? "" : `${nsp}#`) + this.socket.io.engine.id;
  }

  namespace(name, options) {
    return new LegacyClient(this.socket.io.socket(name, options), `${this.where} ${name}`);
  }

  close() {
    this.socket.close();
    this.socket.io.close();
  }

  state() {
    return { ...super.state(), errors: this.errors };
  }
}

/** Connects to one node; the test closes the client at its end. */
export async function connectLegacy(t, node, { namespace = "/", ...options } = {}) {
  const socket = io(node.url + namespace, { transports: ["websocket"], forceNew: true, reconnectionDelay: 50, ...options });
  const client = new LegacyClient(socket, `${node.id}${namespace} (generation 2)`);
  t.after(() => client.close());
  await client.connected();
  return client;
}
