// The shared scenarios with every generation of the official client in Node.js.

import { createRequire } from "node:module";
import { describe, test } from "node:test";
import { io as io4 } from "socket.io-client";
import { io as io3 } from "socket.io-client-3";
import { MODES, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { isMsgpack, parser } from "../lib/parser.mjs";
import { printVersions } from "../lib/versions.mjs";
import { abilities, scenariosFor } from "./list.mjs";
import { play } from "./play.mjs";

printVersions("socket.io-client-3", "socket.io-client-2", "socket.io-msgpack-parser");

const require = createRequire(import.meta.url);

const CLIENTS = [
  { name: "4.8", io: io4, generation: 4, recovers: true },
  { name: "3.1", io: io3, generation: 4 },
];
// Client 2.x speaks Engine.IO 3 and has a parser of its own for it; a msgpack server is not for it.
if (!isMsgpack) CLIENTS.push({ name: "2.5", io: require("socket.io-client-2"), generation: 3, binary: Buffer.from });

/** MATRIX_CLIENTS=4.8,3.1 plays with these alone. */
const wanted = process.env.MATRIX_CLIENTS?.split(",") ?? CLIENTS.map(({ name }) => name);

for (const { name, recovers = false, ...client } of CLIENTS.filter(({ name }) => wanted.includes(name))) {
  const title = `socket.io-client ${name}${isMsgpack ? " with msgpack" : ""}`;
  const scenarios = scenariosFor(title, abilities({ recovers, msgpack: isMsgpack }));
  for (const [mode, transports] of Object.entries(MODES)) {
    describe(`${title}, ${mode}`, () => {
      for (const scenario of scenarios) {
        test(scenario.name, () => {
          return play(scenario, { ...client, transports, options: parser, run: unique("run"), urls: three.map((node) => node.url) });
        });
      }
    });
  }
}
