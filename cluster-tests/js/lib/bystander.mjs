// A well-behaved client on each node that must notice nothing of what others do there.

import assert from "node:assert/strict";
import { after, afterEach, before } from "node:test";
import { Client } from "./client.mjs";
import { parser } from "./parser.mjs";
import { io } from "socket.io-client";

/**
 * For the suite that calls it: connects a client to each of the nodes by each transport, and after every test
 * asks them all for an echo. They must never have been disconnected.
 */
export function withBystanders(nodes) {
  let bystanders;
  before(async () => {
    bystanders = nodes.flatMap((node) => [open(node, "polling"), open(node, "websocket")]);
    await Promise.all(bystanders.map((client) => client.connected()));
  });
  afterEach(async () => {
    const answers = await Promise.all(bystanders.map((client) => client.ask("echo", "unharmed")));
    answers.forEach((answer) => assert.deepEqual(answer, ["unharmed"]));
    for (const client of bystanders) assert.deepEqual(client.disconnects, [], `${client.where} was disturbed`);
  });
  after(() => bystanders?.forEach((client) => client.close()));
}

function open(node, transport) {
  return new Client(io(node.url, { transports: [transport], forceNew: true, ...parser }), `bystander ${node.id} (${transport})`);
}
