// The client of generation 2 in Debian's Chromium, where it takes payloads of bytes, as in no other place.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { join } from "node:path";
import { connect, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { openBrowser } from "../lib/pages.mjs";
import { packageFolder, printVersions } from "../lib/versions.mjs";

printVersions("socket.io-client-2");

const BUNDLE = join(packageFolder("socket.io-client-2"), "dist/socket.io.js");

/** In the page: sends bytes and text there and back, and waits for what another client sends. */
function talk({ transports, tag }) {
  return new Promise((resolve, reject) => {
    const socket = window.io({ transports, forceNew: true });
    const bytes = (data) => Array.from(new Uint8Array(data));
    socket.on("error", (error) => reject(new Error(JSON.stringify(error))));
    socket.on("connect", () => {
      socket.emit("join", tag, () => {
        const sent = new Uint8Array([0, 1, 255]).buffer;
        socket.emit("echo", sent, "é\u{1f6a2}", (echoed, text) => {
          socket.on("msg", (data) => {
            const { name } = socket.io.engine.transport;
            resolve({ echoed: bytes(echoed), text, heard: bytes(data.file), name, id: socket.id });
            socket.close();
          });
          window.isReady = true;
        });
      });
    });
  });
}

describe("generation 2 in a browser", () => {
  const open = openBrowser();

  for (const transports of [["polling"], ["websocket"], ["polling", "websocket"]]) {
    test(`bytes go both ways by ${transports.join(" and ")}`, async (t) => {
      const page = await (await open(t)).newPage();
      const [octets, queries] = [[], []];
      page.on("response", (response) => {
        if (response.headers()["content-type"] === "application/octet-stream") octets.push(response.url());
      });
      page.on("request", (request) => queries.push(request.url()));
      await page.goto(`${three[0].url}/`);
      await page.addScriptTag({ path: BUNDLE });
      const tag = unique("browser");
      const told = page.evaluate(talk, { transports, tag });
      await page.waitForFunction(() => window.isReady);
      const other = await connect(t, three[1]);
      await other.done("room", tag, { file: Buffer.from([7, 0, 254]) });
      const { echoed, text, heard, name, id } = await told;
      assert.deepEqual([echoed, text, heard], [[0, 1, 255], "é\u{1f6a2}", [7, 0, 254]]);
      assert.match(id, /^[\w-]{20}$/);
      if (transports.length === 1) {
        assert.equal(name, transports[0]);
        assert.equal(octets.length > 0, name === "polling", "polls bring bytes as they are");
      }
      assert.ok(!queries.some((url) => url.includes("b64=")), "the client takes bytes");
    });
  }
});
