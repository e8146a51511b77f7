// The chat page in Debian's Chromium: pages on different nodes see each other's messages.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { connect, unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { openBrowser } from "../lib/pages.mjs";

const SCREENSHOT = fileURLToPath(new URL("../../../docs/chat.png", import.meta.url));

describe("chat page", () => {
  const open = openBrowser();

  /** Opens the page of a node under a name; what the page complains about is kept in `page.errors`. */
  async function visit(t, node, name, room) {
    const context = await open(t, { viewport: { width: 720, height: 520 }, colorScheme: "light" });
    const page = await context.newPage();
    page.errors = [];
    await page.addInitScript((name) => sessionStorage.setItem("name", name), name);
    page.on("pageerror", (error) => page.errors.push(error.message));
    page.on("console", (message) => message.type() === "error" && page.errors.push(`${message.text()} ${message.location().url}`));
    await page.goto(`${node.url}/?room=${encodeURIComponent(room)}`);
    await page.locator("#state.up").waitFor();
    await page.locator("li.note", { hasText: `You are ${name} in ${room}` }).waitFor();
    return page;
  }

  async function say(page, text) {
    await page.fill("#text", text);
    await page.press("#text", "Enter");
  }

  function message(page, from, text) {
    return page.locator("li", { has: page.locator("b", { hasText: from }), hasText: text }).waitFor();
  }

  test("two pages on two nodes see each other's messages", async (t) => {
    const room = process.env.UPDATE_SCREENSHOT === "1" ? "harbour" : unique("room");
    const ann = await visit(t, three[0], "Ann", room);
    const bob = await visit(t, three[1], "Bob", room);
    assert.equal(await ann.locator("#node").textContent(), new URL(three[0].url).host);
    assert.equal(await bob.locator("#node").textContent(), new URL(three[1].url).host);

    await say(ann, "Ahoy! Which node are you on?");
    await message(bob, "Ann", "Ahoy! Which node are you on?");
    await say(bob, `The one at ${new URL(three[1].url).host}.`);
    await message(ann, "Bob", "The one at");
    await say(ann, "And still in one conversation!");
    await Promise.all([message(ann, "Ann", "And still"), message(bob, "Ann", "And still")]);
    assert.equal(await bob.locator("li:not(.note)").count(), 3);
    await bob.locator("#state", { hasText: "websocket" }).waitFor();
    assert.deepEqual([...ann.errors, ...bob.errors].filter((error) => !error.includes("favicon")), []);

    if (process.env.UPDATE_SCREENSHOT === "1") {
      mkdirSync(fileURLToPath(new URL("../../../docs", import.meta.url)), { recursive: true });
      await bob.screenshot({ path: SCREENSHOT });
    }
  });

  test("markup in a message or a name is text, and data of other shapes is ignored", async (t) => {
    const room = unique("room");
    const page = await visit(t, three[2], "Cat", room);
    const attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    const client = await connect(t, three[0]);
    for (const data of [null, 7, "text", [attack], { from: 1, text: attack, node: "x" }, { text: attack }, Buffer.from([1])]) {
      await client.done("room", room, data);
    }
    await client.done("room", room, { from: attack, text: attack, node: attack });
    await message(page, "<img", attack);
    assert.equal(await page.locator("li:not(.note)").count(), 1);
    assert.equal(await page.locator("#messages img, #messages script").count(), 0);
    assert.equal(await page.title(), "Flotilla chat");
  });

  test("another room is another conversation", async (t) => {
    const [here, there] = [unique("room"), unique("room")];
    const ann = await visit(t, three[0], "Ann", here);
    const bob = await visit(t, three[1], "Bob", there);
    await say(ann, "only for here");
    await message(ann, "Ann", "only for here");
    await bob.fill("#room", here);
    await bob.click("#who button");
    await bob.locator("li.note", { hasText: `You are Bob in ${here}, with 1 other.` }).waitFor();
    await say(ann, "for both of us");
    await message(bob, "Ann", "for both of us");
    assert.equal(await bob.locator("li", { hasText: "only for here" }).count(), 0);
  });

  test("a page finds its way back into its room after its connection broke", async (t) => {
    const room = unique("room");
    const ann = await visit(t, three[0], "Ann", room);
    const client = await connect(t, three[1]);
    await ann.evaluate(() => socket.io.engine.close());
    await ann.locator("li.note", { hasText: `You are Ann in ${room}` }).nth(1).waitFor();
    await client.done("room", room, { from: "Dan", text: "welcome back", node: "elsewhere" });
    await message(ann, "Dan", "welcome back");
  });
});
