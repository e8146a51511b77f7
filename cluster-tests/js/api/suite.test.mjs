// The test suite that api.io 1.0.3 carries, unmodified, with every node in the place of its server.

import { after, before, describe, it } from "node:test";
import { GENERATIONS, fresh, ofGeneration, require, withModules } from "../lib/apiio.mjs";
import { three } from "../lib/nodes.mjs";

const SUITE = "api.io/test/test.js";
const CLIENT = require.resolve("api.io/api.io-client");

/** What the suite asks for, in the place of its server, which is there, and of a free port, which is the node's. */
function stub(port) {
  const path = (name) => `stub:${name}:${port}`;
  const put = (name, exports) => {
    require.cache[path(name)] = { id: path(name), filename: path(name), loaded: true, exports };
  };
  put("get-port", async () => port);
  put("server", { run: async () => {}, stop: async () => {} });
  return (request, from) => {
    if (!from?.endsWith(SUITE)) return undefined;
    return { "get-port": path("get-port"), "../examples/server": path("server"), chai: require.resolve("chai") }[request];
  };
}

// What mocha gives to a suite. In node:test the two suites of it run one after the other as well.
Object.assign(globalThis, { after, before, describe, it });

for (const generation of Object.keys(GENERATIONS)) {
  for (const node of three) {
    describe(`api.io's own suite, ${generation}, at ${node.id}`, () => {
      const [instead, client] = [stub(Number(new URL(node.url).port)), ofGeneration(generation)];
      withModules((...asked) => instead(...asked) ?? client(...asked), () => {
        delete require.cache[CLIENT];
        fresh(SUITE);
      });
    });
  }
}
