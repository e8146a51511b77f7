// Single HTTP requests to a node, without the conveniences that would hide what is on the wire.

import { request as httpRequest } from "node:http";
import { within } from "./until.mjs";

/**
 * One request on a connection of its own; resolves to `{status, headers, text}`. `body` may be a string,
 * a Buffer, or an array of chunks (sent chunked, so without a length in front). `signal` aborts it.
 */
export function request(node, { method = "GET", path = "/socket.io/", query, headers, body, signal } = {}) {
  const url = new URL(path + queryString(query), node.url);
  const answered = new Promise((resolve, reject) => {
    const outgoing = httpRequest(url, { method, headers, signal, agent: false });
    outgoing.on("response", (response) => collect(response).then(resolve, reject));
    // A server may answer 413 and close while the body is still being written.
    outgoing.on("error", reject);
    if (Array.isArray(body)) body.forEach((chunk) => outgoing.write(chunk));
    outgoing.end(Array.isArray(body) ? undefined : body);
  });
  return within(`${method} ${url}`, answered);
}

/** Asks for a WebSocket; resolves to the response that refuses it, or to `{status: 101}`. */
export function requestWebSocket(node, query, headers = {}) {
  const url = new URL(`/socket.io/${queryString(query)}`, node.url);
  const answered = new Promise((resolve, reject) => {
    const outgoing = httpRequest(url, {
      agent: false,
      headers: {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        ...headers,
      },
    });
    outgoing.on("response", (response) => collect(response).then(resolve, reject));
    outgoing.on("upgrade", (response, socket) => {
      const ended = new Promise((done) => socket.on("close", done));
      socket.on("error", () => {});
      socket.resume();
      resolve({ status: 101, headers: response.headers, socket, ended });
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
  return within(`an answer to the upgrade ${url}`, answered);
}

function queryString(query) {
  if (!query) return "";
  return `?${typeof query === "string" ? query : new URLSearchParams(query)}`;
}

async function collect(response) {
  const chunks = [];
  for await (const chunk of response) chunks.push(chunk);
  return { status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() };
}
