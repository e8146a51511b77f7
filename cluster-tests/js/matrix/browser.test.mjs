// The shared scenarios in Chromium, with the bundle that the nodes themselves serve.

import { after, before, describe, test } from "node:test";
import { readFileSync } from "node:fs";
import { MODES, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { launch } from "../lib/pages.mjs";
import { isMsgpack } from "../lib/parser.mjs";
import { abilities, scenariosFor } from "./list.mjs";

const PLAYER = readFileSync(new URL("./play.mjs", import.meta.url), "utf8");
const BUNDLE = isMsgpack ? "socket.io.msgpack.min.js" : "socket.io.min.js";

const title = `bundle in Chromium${isMsgpack ? " with msgpack" : ""}`;
const scenarios = scenariosFor(title, abilities({ recovers: true, msgpack: isMsgpack }));
const urls = three.map((node) => node.url);

for (const [mode, transports] of Object.entries(MODES)) {
  describe(`${title}, ${mode}`, () => {
    let browser;
    let page;
    before(async () => {
      browser = await launch();
      page = await browser.newPage();
      // A page that came from the first node; the others are of other origins to it. Any page of its own will do: Chromium
      // lets one that no node sent, as this test could make one up, connect to no local address.
      await page.goto(`${urls[0]}/socket.io/${BUNDLE}`);
      await page.addScriptTag({ url: `${urls[0]}/socket.io/${BUNDLE}` });
      await page.route(`${urls[0]}/matrix/play.mjs`, (route) => route.fulfill({ contentType: "text/javascript", body: PLAYER }));
    });
    after(() => browser?.close());

    for (const scenario of scenarios) {
      test(scenario.name, async () => {
        const world = { transports, options: {}, generation: 4, run: unique("run"), urls };
        await page.evaluate(async ({ scenario, world }) => {
          const { play } = await import("/matrix/play.mjs");
          // The bundle with msgpack takes nothing else for binary.
          await play(scenario, { ...world, io: globalThis.io, binary: (bytes) => bytes.buffer });
        }, { scenario, world });
      });
    }
  });
}
