// The examples of express.io's README on three nodes (node/examples/routes.rs): sockets, HTTP, and the page.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect, connectAll, dial } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { twoPages } from "../lib/pages.mjs";

async function clients(t) {
  const all = await connectAll(t, three);
  for (const client of all) {
    client.heard = [];
    client.socket.onAny((event, ...args) => client.heard.push(JSON.stringify([event, ...args])));
  }
  return all;
}

function heard(client, ...event) {
  return client.until(JSON.stringify(event), () => client.heard.includes(JSON.stringify(event)));
}

async function request(node, method, path, body) {
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await fetch(node.url + path, { method, ...json });
  return [response.status, await response.json()];
}

describe("express.io's README", () => {
  test("a simple example, broadcasting, acknowledgements, forwarding", async (t) => {
    const [ann, bob, cid] = await clients(t);
    ann.emit("ready");
    await heard(ann, "talk", { message: "io event from an io route on the server" });
    ann.emit("visit");
    await Promise.all([heard(bob, "new visitor"), heard(cid, "new visitor")]);
    ann.emit("announce", { message: "to all" });
    await Promise.all([ann, bob, cid].map((client) => heard(client, "announce", { message: "to all" })));
    assert.ok(!ann.heard.includes('["new visitor"]'));
    assert.deepEqual(await ann.ask("question"), [{ success: "here is your acknowledgement data" }]);
    assert.deepEqual(await ann.ask("greet"), [{ hello: "from io route" }]);
  });

  test("rooms", async (t) => {
    const [ann, bob] = await clients(t);
    await ann.done("enter", "lobby");
    await bob.done("enter", "lobby");
    await heard(ann, "announce", { message: "New client in the lobby room." });
    assert.deepEqual(bob.heard, []);
  });

  test("sessions", async (t) => {
    const [ann] = await clients(t);
    ann.socket.on("get feelings", () => ann.emit("send feelings", "good"));
    ann.emit("name", "ann");
    await heard(ann, "session", { name: "ann", feelings: "good" });
  });

  test("one session for sockets and HTTP, on any node", async (t) => {
    const first = await fetch(`${three[0].url}/visits`);
    assert.equal(await first.json(), 1);
    const [cookie] = first.headers.getSetCookie().map((set) => set.split(";")[0]);
    assert.match(cookie, /^connect\.sid=s%3A|^connect\.sid=s:/);
    const ann = await connect(t, three[1], { extraHeaders: { cookie } });
    assert.deepEqual(await ann.ask("visits"), [2]);
    const again = await fetch(`${three[2].url}/visits`, { headers: { cookie } });
    assert.equal(await again.json(), 3);
    const byQuery = await connect(t, three[0], { query: { cookie } });
    assert.deepEqual(await byQuery.ask("visits"), [4]);
    // The original goes on with an empty session.
    const forged = dial(t, three[0], { extraHeaders: { cookie: `${cookie}x` }, reconnection: false });
    await forged.until("a refusal", () => forged.refusals.length > 0);
  });

  test("routing, from sockets and from HTTP alike", async (t) => {
    const [ann, bob] = await clients(t);
    assert.deepEqual(await ann.ask("customers:create", { n: 1 }), [{ created: { n: 1 } }]);
    await heard(bob, "customer created", { n: 1 });
    assert.deepEqual(await request(three[2], "POST", "/api/customers", { n: 2 }), [200, { created: { n: 2 } }]);
    await Promise.all([ann, bob].map((client) => heard(client, "customer created", { n: 2 })));
    assert.deepEqual(await request(three[1], "GET", "/api/customers/5"), [200, { read: "5" }]);
    assert.deepEqual(await request(three[1], "GET", "/api/customers"), [200, { read: null }]);
    assert.deepEqual(await request(three[0], "PUT", "/api/customers/5", { n: 3 }), [200, { updated: { n: 3 } }]);
    assert.deepEqual(await request(three[0], "DELETE", "/api/customers/5"), [200, { deleted: "5" }]);
    assert.deepEqual(await request(three[0], "POST", "/hello"), [200, { hello: "from io route" }]);
    assert.equal((await fetch(`${three[0].url}/api/nobody/5`)).status, 404);
  });
});

describe("the page", () => {
  const open = twoPages();

  test("pages on two nodes hear each other, and routes answer sockets and HTTP", async (t) => {
    const { one, two, errors } = await open(t);
    const line = (page, text) => page.locator("li", { hasText: text }).first().waitFor();
    // One after the other: they share their cookies, and the second comes to the session of the first.
    for (const [page, node] of [[one, three[0]], [two, three[1]]]) {
      await page.goto(node.url);
      await page.locator("#state", { hasText: "connected" }).waitFor();
    }
    const press = (name) => one.getByRole("button", { name, exact: true }).click();

    await press("visit");
    await line(two, "← new visitor");
    await press("greet");
    await line(one, '→ greet: [{"hello":"from io route"}]');
    await press("name");
    await line(one, '← session [{"name":"ann","feelings":"good"}]');
    await press("visits");
    await line(one, "→ visits: [1]");
    await press("GET /visits");
    await line(one, "→ GET /visits: 200 2");
    await press("POST /hello");
    await line(one, '→ POST /hello: 200 {"hello":"from io route"}');
    await press("POST /api/customers");
    await line(two, '← customer created [{"name":"bob"}]');
    assert.deepEqual(errors, []);
  });
});
