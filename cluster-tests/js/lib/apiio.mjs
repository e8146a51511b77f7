// api.io's own client, unmodified, on the Socket.IO client that it names (2.x) or on that of generation 4.

import Module, { createRequire } from "node:module";
import { until } from "./until.mjs";
import { printVersions } from "./versions.mjs";

printVersions("api.io", "socket.io-client", "socket.io-client-2");

export const require = createRequire(import.meta.url);
const CLIENT = require.resolve("api.io/api.io-client");

/** By the wire that it speaks: what `require("socket.io-client")` gives to api.io's client. */
export const GENERATIONS = { "socket.io-client 2": undefined, "socket.io-client 4": require.resolve("socket.io-client") };

/** Runs `load` while modules are resolved by `replace(request, from)` first. */
export function withModules(replace, load) {
  const resolve = Module._resolveFilename;
  Module._resolveFilename = (request, from, ...rest) => replace(request, from?.filename) ?? resolve(request, from, ...rest);
  try {
    return load();
  } finally {
    Module._resolveFilename = resolve;
  }
}

/** For `withModules`: gives api.io's client the Socket.IO client of that generation. */
export function ofGeneration(generation) {
  return (request, from) => (request === "socket.io-client" && from === CLIENT ? GENERATIONS[generation] : undefined);
}

/** A module that nobody else has. */
export function fresh(path) {
  delete require.cache[require.resolve(path)];
  return require(path);
}

/** A client of its own. */
export function loadClient(generation) {
  return withModules(ofGeneration(generation), () => fresh(CLIENT));
}

/** Connects a client to a node; the test disconnects it at its end. */
export async function connectApi(t, node, { generation = "socket.io-client 2", sessionId } = {}) {
  const client = loadClient(generation);
  const statuses = [];
  const { hostname, port } = new URL(node.url);
  await client.connect({ hostname, port, sessionId }, (...status) => statuses.push(status));
  t.after(() => client.disconnect());
  return Object.assign(client, { statuses, where: node.id });
}

/** Collects what comes for a subscription. */
export function collect(client, namespace, event, options) {
  const received = [];
  const subscription = client[namespace].on(event, (data) => received.push(data), options);
  return Object.assign(received, { subscription });
}

/** Waits until these have as much as expected, and fails if it is anything else. */
export async function received(lists, expected) {
  await until("the events", () => lists.every((list) => list.length >= expected.length), () => lists);
}
