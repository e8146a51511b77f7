// WebSocket sessions and the upgrade to them: probe, switch, limits, and each way to end.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { withBystanders } from "../lib/bystander.mjs";
import { request, requestWebSocket } from "../lib/http.mjs";
import { three } from "../lib/nodes.mjs";
import { Polling, Socket, Tcp, frame } from "../lib/raw.mjs";
import { again, until } from "../lib/until.mjs";

const [first] = three;

describe("websocket", () => {
  withBystanders(three);

  test("text and binary frames are answered with their like", async (t) => {
    const socket = await Socket.join(t, first);
    socket.send('420["echo","hello"]');
    assert.deepEqual(await socket.take(1), ['430["hello"]']);
    socket.send('451-1["echo",{"_placeholder":true,"num":0}]', Buffer.from([1, 2, 3, 4]));
    assert.deepEqual(await socket.take(2), ['461-1[{"_placeholder":true,"num":0}]', Buffer.from([1, 2, 3, 4])]);
  });

  test("a frame of no known packet type ends the session", async (t) => {
    for (const text of ["abc", "7", "9hello", ""]) {
      const socket = await Socket.open(t, first);
      socket.send(text);
      await socket.end();
    }
  });

  test("a close frame is answered and ends the session", async (t) => {
    const [socket, witness] = [await Socket.join(t, first), await Socket.join(t, three[1])];
    socket.ws.close(1000);
    assert.equal((await socket.end()).code, 1000);
    await gone(witness, socket.id);
  });

  test("a connection that breaks ends the session", async (t) => {
    const [socket, witness] = [await Socket.join(t, first), await Socket.join(t, three[1])];
    socket.ws.terminate();
    await gone(witness, socket.id);
  });

  test("a message up to maxPayload passes, a longer one closes with 1009", async (t) => {
    const code = await closeCode(async () => {
      const socket = await Socket.join(t, first);
      const { maxPayload } = socket.handshake;
      const exact = `420["echo","${"x".repeat(maxPayload - 14)}"]`;
      socket.send(exact);
      assert.equal((await socket.take(1))[0].length, maxPayload - 7);
      socket.send(`${exact} `);
      return socket;
    });
    assert.equal(code, 1009);
  });

  test("a message that is too long only when its fragments are added closes with 1009", async (t) => {
    const code = await closeCode(async () => {
      const socket = await Socket.join(t, first);
      const third = "x".repeat(400_000);
      socket.ws.send(`42["echo","${third}`, { fin: false });
      socket.ws.send(third, { fin: false });
      socket.ws.send(third, { fin: true });
      return socket;
    });
    assert.equal(code, 1009);
  });

  test("a frame that only claims to be too long closes before its payload comes", async (t) => {
    const tcp = await Tcp.webSocket(t, first);
    tcp.write(frame("x", { length: 1_000_001 }));
    await tcp.end();
  });

  test("fragments make one message, with control frames between them", async (t) => {
    const socket = await Socket.join(t, first);
    const pongs = [];
    socket.ws.on("pong", (data) => pongs.push(data.toString()));
    socket.ws.send('420["echo","a', { fin: false });
    socket.ws.ping("in between");
    socket.ws.send("", { fin: false });
    socket.ws.send('b"]', { fin: true });
    assert.deepEqual(await socket.take(1), ['430["ab"]']);
    await until("the pong", () => pongs.length > 0);
    assert.deepEqual(pongs, ["in between"]);
  });

  test("many frames in one segment, and one frame in many, are all read", async (t) => {
    const tcp = await Tcp.webSocket(t, first);
    tcp.write(frame("40"));
    await tcp.until("its CONNECT", () => tcp.received.includes('40{"sid"'));
    tcp.write(Buffer.concat(Array.from({ length: 50 }, (_, n) => frame(`42${n}["echo",${n}]`))));
    await tcp.until("the last echo", () => tcp.received.includes("4349[49]"));
    for (const byte of frame('4299["echo","slowly"]')) {
      tcp.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await tcp.until("the echo of the slow frame", () => tcp.received.includes('4399["slowly"]'));
  });

  describe("frames that break RFC 6455 close the connection", () => {
    const broken = {
      "not masked": frame("2", { masked: false }),
      "reserved bits": frame("2", { reserved: 4 }),
      "unknown opcode": frame("2", { opcode: 3 }),
      "unknown control opcode": frame("2", { opcode: 11 }),
      "a control frame that is too long": frame("x".repeat(126), { opcode: 9 }),
      "a control frame in fragments": frame("x", { opcode: 9, fin: false }),
      "a continuation of nothing": frame("x", { opcode: 0 }),
      "a new message inside a message": Buffer.concat([frame("4", { fin: false }), frame("4")]),
      "text that is not UTF-8": frame(Buffer.from([0x34, 0xff, 0xfe])),
      "a close frame of one byte": frame("x", { opcode: 8 }),
      "a close code that may not be sent": frame(Buffer.from([1005 >> 8, 1005 & 0xff]), { opcode: 8 }),
    };
    for (const [name, bytes] of Object.entries(broken)) {
      test(name, async (t) => {
        const tcp = await Tcp.webSocket(t, first);
        tcp.write(bytes);
        await tcp.end();
      });
    }
  });

  test("an upgrade request that is not a WebSocket handshake is refused", async () => {
    for (const headers of [{ "sec-websocket-version": "12" }, { "sec-websocket-key": "short" }, { upgrade: "h2c" }]) {
      const response = await requestWebSocket(first, "EIO=4&transport=websocket", headers).catch((error) => error);
      assert.notEqual(response.status, 101, JSON.stringify(headers));
    }
  });
});

describe("upgrade", () => {
  withBystanders(three);

  test("probe, noop to the pending GET, switch: then everything goes by WebSocket", async (t) => {
    const session = await Polling.join(first);
    const pending = session.get();
    const socket = await Socket.upgrade(t, session);
    socket.send("2probe");
    assert.deepEqual(await socket.take(1), ["3probe"]);
    assert.equal((await pending).text, "6");
    socket.send("5");
    await socket.works();
  });

  test("a GET that comes after the probe is ended by a noop too", async (t) => {
    const session = await Polling.join(first);
    const socket = await Socket.upgrade(t, session);
    socket.send("2probe");
    await socket.take(1);
    assert.equal((await session.get()).text, "6");
    socket.send("5");
    await socket.works();
  });

  test("polling goes on until the switch", async (t) => {
    const session = await Polling.join(first);
    const socket = await Socket.upgrade(t, session);
    socket.send("2probe");
    await socket.take(1);
    await session.post('427["echo","by polling"]');
    const heard = [];
    while (!heard.includes('437["by polling"]')) heard.push(...(await session.take(1)));
    socket.send("5");
    await socket.works();
  });

  test("what waited for a GET comes by WebSocket after the switch, in order", async (t) => {
    const session = await Polling.join(first);
    const socket = await Socket.upgrade(t, session);
    socket.send("2probe");
    await socket.take(1);
    await session.post(['420["echo",0]', '421["echo",1]', '422["echo",2]'].join("\x1e"));
    socket.send("5", '423["echo",3]');
    assert.deepEqual(await socket.take(4), ["430[0]", "431[1]", "432[2]", "433[3]"]);
  });

  test("HTTP requests after the switch are refused and change nothing", async (t) => {
    const { session, socket } = await upgraded(t);
    for (const response of [await session.get(), await session.post('42["echo"]')]) {
      assert.equal(response.status, 400);
      assert.equal(response.text, '{"code":3,"message":"Bad request"}');
    }
    await socket.works();
  });

  test("another WebSocket for an upgraded session is closed and changes nothing", async (t) => {
    const { session, socket } = await upgraded(t);
    const late = new Socket(first, `EIO=4&transport=websocket&sid=${session.sid}`);
    t.after(() => late.ws.terminate());
    await late.end();
    await socket.works();
  });

  test("another WebSocket beside one that probes is closed and changes nothing", async (t) => {
    const session = await Polling.join(first);
    const socket = await Socket.upgrade(t, session);
    socket.send("2probe");
    await socket.take(1);
    const late = new Socket(first, `EIO=4&transport=websocket&sid=${session.sid}`);
    t.after(() => late.ws.terminate());
    await late.end();
    socket.send("5");
    await socket.works();
  });

  test("a WebSocket for a session that is a WebSocket itself is closed", async (t) => {
    const socket = await Socket.join(t, first);
    const late = new Socket(first, `EIO=4&transport=websocket&sid=${socket.sid}`);
    t.after(() => late.ws.terminate());
    await late.end();
    await socket.works();
  });

  test("anything but a probe closes the WebSocket, and the session goes on by polling", async (t) => {
    for (const text of ["2wrong", "2", "3probe", '42["echo"]', "abc", ""]) {
      const session = await Polling.join(first);
      const socket = await Socket.upgrade(t, session);
      socket.send(text);
      await socket.end();
      await session.works();
    }
  });

  test("a WebSocket that goes away after its probe leaves the session to polling", async (t) => {
    const session = await Polling.join(first);
    const socket = await Socket.upgrade(t, session);
    socket.send("2probe");
    await socket.take(1);
    socket.ws.close();
    await socket.end();
    await session.works();
    const second = await Socket.upgrade(t, session);
    second.send("2probe");
    assert.deepEqual(await second.take(1), ["3probe"]);
    second.send("5");
    await second.works();
  });

  test("a session that ends while it is probed takes the WebSocket with it", async (t) => {
    const session = await Polling.open(first);
    const socket = await Socket.upgrade(t, session);
    socket.send("2probe");
    await socket.take(1);
    await session.post("1");
    await socket.end();
    await session.gone();
  });

  test("binary goes on across the switch", async (t) => {
    const { socket } = await upgraded(t);
    socket.send('451-1["echo",{"_placeholder":true,"num":0}]', Buffer.from([9]));
    assert.deepEqual(await socket.take(2), ['461-1[{"_placeholder":true,"num":0}]', Buffer.from([9])]);
  });

  test("an upgrade to a session that nobody has is refused", async () => {
    const response = await request(first, { query: "EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA" });
    assert.equal(response.text, '{"code":1,"message":"Session ID unknown"}');
  });
});

async function upgraded(t) {
  const session = await Polling.join(first);
  const socket = await Socket.upgrade(t, session);
  socket.send("2probe");
  await socket.take(1);
  socket.send("5");
  await socket.works();
  return { session, socket };
}

/**
 * The code that the server closes the socket of `breach` with. A server waits only for a while for the rest of what is
 * too long: a client that is slower may see its stream reset instead of the close frame, and another one is asked for.
 */
function closeCode(breach) {
  return again("a close frame", async () => {
    const { code } = await (await breach()).end();
    return code !== 1006 && code;
  });
}

/** Waits until no node lists this socket. */
async function gone(witness, id) {
  await until(
    `${id} to be gone`,
    async () => {
      witness.send(`420["who","${id}"]`);
      return (await witness.take(1))[0] === "430[[]]";
    },
    () => witness.state(),
  );
}
