// Socket.IO packets: what is answered, what closes the connection, what is forgiven.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { withBystanders } from "../lib/bystander.mjs";
import { unique } from "../lib/client.mjs";
import { three } from "../lib/nodes.mjs";
import { Polling, SEPARATOR, Socket } from "../lib/raw.mjs";

const [first] = three;
const CONNECTED = /^\{"sid":"[\w-]{20}"\}$/;
const slot = (num) => `{"_placeholder":true,"num":${num}}`;

describe("connect", () => {
  withBystanders(three);

  test("to the main namespace, with and without its name or a payload", async (t) => {
    for (const packet of ["40", "40/", "40/,", "40{}", '40{"token":"123"}', '40/,{"token":"123"}']) {
      const socket = await Socket.open(t, first);
      socket.send(packet);
      const [answer] = await socket.take(1);
      assert.match(answer, /^40\{/, packet);
      assert.match(answer.slice(2), CONNECTED, packet);
      await socket.works();
    }
  });

  test("to a named namespace, with and without a payload", async (t) => {
    for (const packet of ["40/relay-direct,", "40/relay-direct", '40/relay-direct,{"token":"abc"}']) {
      const socket = await Socket.open(t, first);
      socket.send(packet);
      const [answer] = await socket.take(1);
      assert.ok(answer.startsWith("40/relay-direct,"), `${packet}: ${answer}`);
      assert.match(answer.slice("40/relay-direct,".length), CONNECTED, packet);
    }
  });

  test("to an unknown namespace is refused and the connection stays", async (t) => {
    const socket = await Socket.open(t, first);
    socket.send("40/random", "40/random,", '40/ünknown,{"a":1}');
    const refusal = (name) => `44${name},{"message":"Invalid namespace"}`;
    assert.deepEqual(await socket.take(3), [refusal("/random"), refusal("/random"), refusal("/ünknown")]);
    socket.send("40");
    await socket.take(1);
    await socket.works();
  });

  test("engine and socket ids differ, and each namespace has its own", async (t) => {
    const socket = await Socket.join(t, first);
    socket.send("40/relay-direct,");
    const [answer] = await socket.take(1);
    const ids = [socket.sid, socket.id, JSON.parse(answer.slice(answer.indexOf("{"))).sid];
    assert.equal(new Set(ids).size, 3);
  });

  test("leaving one namespace leaves the other alone", async (t) => {
    const socket = await Socket.join(t, first);
    socket.send("40/relay-direct,");
    await socket.take(1);
    socket.send("41/relay-direct,");
    await socket.works();
    socket.send("40/relay-direct,");
    assert.match((await socket.take(1))[0], /^40\/relay-direct,/);
    socket.send("41");
    socket.send('42/relay-direct,5["echo",1]');
    assert.deepEqual(await socket.take(1), ["43/relay-direct,5[1]"]);
  });
});

describe("events and acks", () => {
  withBystanders(three);

  test("are answered in the packet's own terms", async (t) => {
    const socket = await Socket.join(t, first);
    const exchanges = [
      ['42456["echo",1,"2",{"3":[false]}]', '43456[1,"2",{"3":[false]}]'],
      ['420["echo"]', "430[]"],
      ['429007199254740991["echo",null]', "439007199254740991[null]"],
      ['42/,7["echo",1]', "437[1]"],
    ];
    for (const [sent, expected] of exchanges) {
      socket.send(sent);
      assert.deepEqual(await socket.take(1), [expected], sent);
    }
  });

  test("attachments are put where their placeholders are, in any order", async (t) => {
    const socket = await Socket.join(t, first);
    socket.send(`452-789["echo",${slot(0)},{"a":[${slot(1)}]}]`, Buffer.from([1, 2, 3]), Buffer.from([4]));
    assert.deepEqual(await socket.take(3), [`462-789[${slot(0)},{"a":[${slot(1)}]}]`, Buffer.from([1, 2, 3]), Buffer.from([4])]);

    socket.send(`452-1["echo",${slot(1)},${slot(0)}]`, Buffer.from([10]), Buffer.from([11]));
    const [head, ...attachments] = await socket.take(3);
    const numbers = [...head.matchAll(/"num":(\d)/g)].map((match) => Number(match[1]));
    assert.deepEqual(numbers.map((number) => attachments[number]), [Buffer.from([11]), Buffer.from([10])]);
  });

  test("a message to many is the same packet for each", async (t) => {
    const sockets = await Promise.all(three.map((node) => Socket.join(t, node)));
    const room = unique("room");
    for (const socket of sockets) {
      socket.send(`421["join","${room}"]`);
      assert.deepEqual(await socket.take(1), ["431[]"]);
    }
    sockets[0].send(`42["room","${room}",{"n":1,"list":[true,null]}]`);
    for (const socket of sockets) assert.deepEqual(await socket.take(1), ['42["msg",{"n":1,"list":[true,null]}]']);
    sockets[1].send(`451-["room","${room}",${slot(0)}]`, Buffer.from([7]));
    for (const socket of sockets) assert.deepEqual(await socket.take(2), [`451-["msg",${slot(0)}]`, Buffer.from([7])]);
  });

  test("numbers of a session filter compare by value, however they are written", async (t) => {
    const [socket, sender] = [await Socket.join(t, first), await Socket.join(t, three[1])];
    const number = Math.floor(Math.random() * 1e9);
    // Clients in other languages write a float as 5.0, which JavaScript's === holds equal to 5.
    socket.send(`421["login",${number}.0]`);
    await socket.take(1);
    sender.send(`42["tell",{"username":${number}},"found"]`);
    assert.deepEqual(await socket.take(1), ['42["msg","found"]']);
  });
});

describe("forgiven", () => {
  withBystanders(three);

  const forgiven = {
    "an ack that nobody asked for": ["4399[]", "43123456789012345678[1]"],
    "a binary ack that nobody asked for": [`461-99[${slot(0)}]`, Buffer.from([1])],
    "an event with a number for a name": ["42[1]"],
    "an event that nobody handles": ['42["nobody handles this",1]', '421["nor this"]'],
    "an unsolicited pong": ["3", "3probe"],
    "a noop": ["6"],
    "a verb without its arguments": ['42["join"]', '42["room"]', '42["dm"]', '42["tell"]', '42["who"]', '42["leave"]', '42["login"]', '42["bcast"]'],
    "a verb with arguments of other shapes": ['42["join",{}]', '42["room",1,2]', '42["dm",null,2]', '42["tell",[],2]', '42["who",[]]', '42["leave",true]'],
    "a verb with arguments of other shapes, with an ack": ['427["join",{}]', '428["tell",[[]],2]'],
  };
  for (const [name, frames] of Object.entries(forgiven)) {
    test(name, async (t) => {
      const socket = await Socket.join(t, first);
      socket.send(...frames);
      await socket.works();

      const session = await Polling.join(first);
      await session.post(frames.map((frame) => (Buffer.isBuffer(frame) ? `b${frame.toString("base64")}` : frame)).join(SEPARATOR));
      await session.works();
    });
  }
});

describe("violations close the connection", () => {
  withBystanders(three);

  /** Frames after joining `/`, unless `before` is set: then nothing is joined. */
  const violations = {
    "a second CONNECT to a joined namespace": { frames: ["40"] },
    "an EVENT before any CONNECT": { before: true, frames: ['42["echo",1]'] },
    "an ACK before any CONNECT": { before: true, frames: ["430[]"] },
    "an EVENT to a namespace that was not joined": { frames: ['42/relay-direct,["echo",1]'] },
    "a DISCONNECT from a namespace that was not joined": { frames: ["41/relay-direct,"] },
    "a CONNECT_ERROR": { frames: ['44{"message":"x"}'] },
    "the reserved name connect": { frames: ['42["connect"]'] },
    "the reserved name connect_error": { frames: ['42["connect_error"]'] },
    "the reserved name disconnect": { frames: ['42["disconnect"]'] },
    "the reserved name disconnecting": { frames: ['42["disconnecting"]'] },
    "the reserved name newListener": { frames: ['42["newListener"]'] },
    "the reserved name removeListener": { frames: ['42["removeListener"]'] },
    "a CONNECT payload that is text": { before: true, frames: ['40"text"'] },
    "a CONNECT payload that is a list": { before: true, frames: ["40[]"] },
    "a CONNECT payload that is null": { before: true, frames: ["40null"] },
    "a CONNECT payload that is no JSON": { before: true, frames: ["40{"] },
    "a DISCONNECT with a payload": { frames: ["41{}"] },
    "an unknown packet type": { frames: ["4abc"] },
    "a packet type beyond the last": { frames: ["47[]"] },
    "an empty message": { frames: ["4"] },
    "an EVENT whose payload is an object": { frames: ["42{}"] },
    "an EVENT whose payload is empty": { frames: ["42[]"] },
    "an EVENT whose name is an object": { frames: ["42[{}]"] },
    "an EVENT whose name is null": { frames: ["42[null]"] },
    "an EVENT whose payload is no JSON": { frames: ['42["echo",]'] },
    "an EVENT with something after its payload": { frames: ['42["echo"]x'] },
    "an ack id that is no number": { frames: ['42abc["echo",1]'] },
    "an ACK whose payload is an object": { frames: ["430{}"] },
    "a binary frame that nothing announced": { frames: [Buffer.from([1])] },
    "text while attachments are awaited": { frames: [`451-["echo",${slot(0)}]`, '42["echo",1]'] },
    "no attachments in a binary event": { frames: ['450-["echo",1]'] },
    "more attachments than allowed": { frames: [`4511-["echo",${Array.from({ length: 11 }, (_, n) => slot(n))}]`] },
    "an attachment count that is no number": { frames: ['45x-["echo",1]'] },
    "an attachment count that is missing": { frames: ['45["echo",1]'] },
    "an attachment count without its dash": { frames: ['451["echo",1]'] },
    "an attachment count beyond all numbers": { frames: ['4599999999999999999999-["echo",1]'] },
    "a placeholder out of range": { frames: [`451-["echo",${slot(1)}]`, Buffer.from([1])] },
    "a placeholder below range": { frames: [`451-["echo",${slot(-1)}]`, Buffer.from([1])] },
    "a placeholder that is no number": { frames: ['451-["echo",{"_placeholder":true,"num":"0"}]', Buffer.from([1])] },
    "a client's ping": { frames: ["2"] },
  };

  test("an EVENT after leaving", async (t) => {
    const socket = await Socket.join(t, first);
    socket.send("41", "40/relay-direct,");
    // The answer to the second tells that the first was handled.
    await socket.take(1);
    socket.send('42["echo",1]');
    await socket.end();
  });

  for (const [name, { before = false, frames }] of Object.entries(violations)) {
    test(name, async (t) => {
      const socket = await (before ? Socket.open(t, first) : Socket.join(t, first));
      socket.send(...frames);
      await socket.end();

      const session = await (before ? Polling.open(first) : Polling.join(first));
      const body = frames.map((frame) => (Buffer.isBuffer(frame) ? `b${frame.toString("base64")}` : frame)).join(SEPARATOR);
      await session.post(body).catch(() => {});
      await session.ended();
    });
  }
});
