// The client's half of api.io's README, with clients spread over the nodes, and what it says of statuses.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { GENERATIONS, collect, connectApi, loadClient } from "../lib/apiio.mjs";
import { openLine } from "../lib/line.mjs";
import { three } from "../lib/nodes.mjs";
import { until } from "../lib/until.mjs";

for (const generation of Object.keys(GENERATIONS)) {
  const everywhere = (t) => Promise.all(three.map((node) => connectApi(t, node, { generation })));

  describe(`README, ${generation}`, () => {
    test("constants and calls are there at every node", async (t) => {
      for (const api of await everywhere(t)) {
        assert.equal(api.myApi.VALUE, "const");
        assert.deepEqual(api.myApi.OBJ, { a: [1, { b: 2 }] });
        assert.equal(api.myApi.NOTHING, null);
        assert.equal(await api.myApi.sum(1, 2), 3);
        assert.equal(await api.myApi.sumAsync(1, 3), 4);
        assert.deepEqual(await api.myApi.who(), { username: "guest" });
        assert.deepEqual(api.statuses, [["connect"]]);
      }
    });

    test("what the server announces reaches the subscribers of all nodes, in one order", async (t) => {
      const clients = await everywhere(t);
      const order = clients.map(() => []);
      const lists = clients.map((api, index) => {
        api.myApi.on("event1|event2|event3", (data) => order[index].push(data));
        return {
          event1: collect(api, "myApi", "event1"),
          event2: collect(api, "myApi", "event2"),
          event3: collect(api, "myApi", "event3", { id: 1, query: { $gte: 4 } }),
        };
      });
      // A call behind its subscriptions: once it is answered, each client is subscribed on all nodes.
      for (const api of clients) await api.myApi.who();
      await until("all to be subscribed", async () => {
        await clients[1].tools.emit("myApi", "event3", 0);
        return order.every((data) => data.includes(0));
      });
      order.forEach((data) => data.splice(0));
      await clients[2].myApi.announce();
      // It comes in a frame for each subscription.
      const isLast = (data) => data.includes(5);
      const hasAll = () => order.every(isLast) && lists.every(({ event3 }) => isLast(event3));
      await until("the last event", hasAll, () => [order, lists]);
      for (const [index, { event1, event2, event3 }] of lists.entries()) {
        assert.deepEqual([...event1], ["Hello World!"]);
        assert.deepEqual([...event2], ["Hello World!"], "and nothing that is for admins");
        assert.deepEqual([...event3], [4, 5]);
        assert.deepEqual(order[index].filter((data) => data !== 0), ["Hello World!", "Hello World!", 1, 2, 3, 4, 5]);
      }
    });

    test("off ends one subscription and leaves the others", async (t) => {
      const [api, sender] = await everywhere(t);
      const [first, second] = [collect(api, "myApi", "event4"), collect(api, "myApi", "event4")];
      const queried = collect(api, "myApi", "event4", { id: "q", query: { value: { $gte: 4 } } });
      await api.myApi.send("both");
      assert.deepEqual([[...first], [...second]], [["both"], ["both"]]);
      first.subscription.dispose();
      await api.myApi.send("second");
      await sender.myApi.send({ value: 5 });
      await until("what the other sent", () => queried.length > 0, () => queried);
      await api.myApi.send({ value: 3 });
      assert.deepEqual([...first], ["both"]);
      assert.deepEqual([...second], ["both", "second", { value: 5 }, { value: 3 }]);
      assert.deepEqual([...queried], [{ value: 5 }]);
      api.myApi.off([second.subscription, queried.subscription]);
      await api.myApi.send("nobody");
      assert.equal(second.length, 4);
    });

    test("errors travel as their message", async (t) => {
      const [api] = await everywhere(t);
      t.mock.method(console, "error", () => {});
      await assert.rejects(api.myApi.fail("z"), new Error("boom z"));
      await assert.rejects(api.myApi.sum(1), /the argument "b" is missing/);
      await assert.rejects(api._call("myApi.nothing"), new Error("No such method"));
      await assert.rejects(api._call("nobody.nothing"), new Error("No such namespace"));
      await assert.rejects(api._call("myApi.VALUE"), new Error("Call on non-function"));
      assert.equal(await api.myApi.sum(1, 2), 3);
    });

    test("binary goes in and out", async (t) => {
      const [api] = await everywhere(t);
      const { len, isBuf, echo } = await api.myApi.buf(Buffer.from([1, 2, 3]));
      assert.deepEqual([len, isBuf, Buffer.from(echo)], [3, true, Buffer.from([1, 2, 3])]);
    });

    test("a name that is registered late is there for those who come later", async (t) => {
      const early = await connectApi(t, three[0], { generation });
      const name = `late${generation.at(-1)}${process.pid}`;
      await early.tools.registerLate(name);
      t.mock.method(console, "error", () => {});
      await assert.rejects(early._call(`${name}.NAME`), new Error("No such namespace"));
      const late = await connectApi(t, three[0], { generation });
      assert.equal(late[name].NAME, name);
    });

    test("a client that comes back is told of it, has its exports, and calls", async (t) => {
      const line = await openLine(t, three[1]);
      const api = await connectApi(t, line, { generation });
      const before = api.myApi;
      // Before it has, a client whose line breaks may wait for its ping timeout: its poll is paused.
      await until("it to have upgraded", () => line.isUpgraded(), () => api.statuses);
      line.cut();
      await until("it to be back", () => api.myApi !== before, () => api.statuses);
      assert.equal(api.statuses.filter(([status]) => status === "disconnect").length, 1);
      assert.equal(await api.myApi.sum(2, 2), 4);
    });

    test("after disconnect calls are refused by the client", async () => {
      const api = loadClient(generation);
      const { hostname, port } = new URL(three[0].url);
      await api.connect({ hostname, port });
      await api.disconnect();
      await assert.rejects(api.myApi.sum(1, 2), (reason) => reason === "Not connected");
    });
  });
}
