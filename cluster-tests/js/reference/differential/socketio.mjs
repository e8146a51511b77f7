// Socket.IO's packets, good and bad, by WebSocket and by polling.

import { named } from "./http.mjs";

const slot = (num) => `{"_placeholder":true,"num":${num}}`;
const CONNECT = { frame: "40", answer: "40{" };

/** Frames on a session that has joined `/`. */
const AFTER_CONNECT = {
  "a second CONNECT": ["40"],
  "a second CONNECT with auth": ['40{"token":1}'],
  "CONNECT to another namespace": ["40/relay-direct,"],
  "CONNECT to an unknown namespace": ["40/nowhere,"],
  "CONNECT to an unknown namespace with a query": ["40/nowhere?a=b,"],
  "CONNECT to a namespace without its comma": ["40/relay-direct"],
  "CONNECT to a namespace without its slash": ["40relay-direct,"],
  "CONNECT with text": ['40/relay-direct,"text"'],
  "CONNECT with a list": ["40/relay-direct,[]"],
  "CONNECT with null": ["40/relay-direct,null"],
  "CONNECT with a number": ["40/relay-direct,1"],
  "CONNECT with bad JSON": ["40/relay-direct,{"],
  "CONNECT with an id": ['40/relay-direct,1{"a":1}'],
  "an event": ['421["echo",1,"2",{"3":[false]}]'],
  "an event without an ack": ['42["echo",1]'],
  "an event with a namespace": ['42/,1["echo",1]'],
  "an event with white space": ['421[ "echo" , 1 ]'],
  "an event with a trailing space": ['421["echo",1] '],
  "an event with an id of zeros": ['42007["echo",1]'],
  "an event with a great id": ['429007199254740991["echo",1]'],
  "an event with an id beyond all numbers": ['4299999999999999999999["echo",1]'],
  "an event with a number for a name": ['421[1,2]'],
  "an event with an empty name": ['421["",2]'],
  "an event to a namespace that was not joined": ['42/relay-direct,["echo",1]'],
  "an event to an unknown namespace": ['42/nowhere,["echo",1]'],
  "an event whose payload is an object": ["42{}"],
  "an event whose payload is empty": ["42[]"],
  "an event whose payload is missing": ["42"],
  "an event whose payload is a string": ['42"echo"'],
  "an event whose name is an object": ["42[{}]"],
  "an event whose name is null": ["42[null]"],
  "an event whose name is true": ["42[true]"],
  "an event whose payload is no JSON": ['42["echo",]'],
  "an event with something behind": ['42["echo"]x'],
  "an event with duplicate keys": ['421["echo",{"a":1,"a":2}]'],
  "an event with a prototype": ['421["echo",{"__proto__":{"a":1}}]'],
  "an event with escapes": ['421["echo","\\u00fc\\ud83d\\udea2\\/"]'],
  "an event with a lone surrogate": ['421["echo","\\ud83d"]'],
  "an event with numbers of all kinds": ['421["echo",1.0,1e2,-0,0.1e1]'],
  "an id that is no number": ['42abc["echo",1]'],
  "the reserved name connect": ['42["connect"]'],
  "the reserved name connect_error": ['42["connect_error"]'],
  "the reserved name disconnect": ['42["disconnect"]'],
  "the reserved name disconnecting": ['42["disconnecting"]'],
  "the reserved name newListener": ['42["newListener"]'],
  "the reserved name removeListener": ['42["removeListener"]'],
  "the name error": ['42["error","x"]'],
  "the name message": ['421["message","x"]'],
  "an ack that nobody asked for": ["4399[]"],
  "an ack without an id": ["43[]"],
  "an ack whose payload is an object": ["430{}"],
  "an ack whose payload is missing": ["430"],
  "an ack to a namespace that was not joined": ["43/relay-direct,0[]"],
  "a DISCONNECT with a payload": ["41{}"],
  "a DISCONNECT from a namespace that was not joined": ["41/relay-direct,"],
  "a CONNECT_ERROR": ['44{"message":"x"}'],
  "a CONNECT_ERROR with text": ['44"x"'],
  "type 7": ["47[]"],
  "type 9": ["49"],
  "no type": ["4abc"],
  "an empty message": ["4"],
  "a binary frame that nothing announced": [Buffer.from([1])],
  "a binary event": [`451-1["echo",${slot(0)}]`, Buffer.from([1, 2, 3])],
  "a binary event with ten attachments": [`4510-1["echo",${Array.from({ length: 10 }, (_, n) => slot(n))}]`, ...Array.from({ length: 10 }, (_, n) => Buffer.from([n]))],
  "a binary event with eleven attachments": [`4511-1["echo",${Array.from({ length: 11 }, (_, n) => slot(n))}]`],
  "a binary event with none": ['450-1["echo",1]'],
  "a binary event with one placeholder twice": [`451-1["echo",${slot(0)},${slot(0)}]`, Buffer.from([1])],
  "a binary event with an attachment that nothing names": ['451-1["echo",1]', Buffer.from([1])],
  "a binary event whose count is no number": ['45x-["echo",1]'],
  "a binary event whose count is missing": ['45["echo",1]'],
  "a binary event whose count is negative": [`45-1-["echo",${slot(0)}]`],
  "a binary event whose count has no dash": [`451["echo",${slot(0)}]`],
  "a binary event whose count is a fraction": [`451.5-["echo",${slot(0)}]`],
  "a binary event whose count has zeros before it": [`4501-1["echo",${slot(0)}]`, Buffer.from([1])],
  "a placeholder out of range": [`451-1["echo",${slot(1)}]`, Buffer.from([1])],
  "a placeholder below range": [`451-1["echo",${slot(-1)}]`, Buffer.from([1])],
  "a placeholder that is text": ['451-1["echo",{"_placeholder":true,"num":"0"}]', Buffer.from([1])],
  "a placeholder that is a fraction": ['451-1["echo",{"_placeholder":true,"num":0.5}]', Buffer.from([1])],
  "a placeholder that is none": ['451-1["echo",{"_placeholder":false,"num":0}]', Buffer.from([1])],
  "a placeholder with more in it": ['451-1["echo",{"_placeholder":true,"num":0,"x":1}]', Buffer.from([1])],
  "a placeholder in a text event": [`421["echo",${slot(0)}]`],
  "a placeholder for a name": [`451-1[${slot(0)}]`, Buffer.from([1])],
  "text while attachments are awaited": [`451-1["echo",${slot(0)}]`, '422["echo",1]'],
  "a pong while attachments are awaited": [`451-1["echo",${slot(0)}]`, "3", Buffer.from([1])],
  "a binary ack that nobody asked for": [`461-99[${slot(0)}]`, Buffer.from([1])],
  "a verb with bad arguments": ['42["join",{}]', '42["tell",[],2]'],
  "a client's ping": ["2"],
};

/** Frames on a session that has joined nothing. */
const BEFORE_CONNECT = {
  "an event": ['42["echo",1]'],
  "an ack": ["430[]"],
  "a CONNECT_ERROR": ["44{}"],
  "CONNECT with its name": ["40/,"],
  "CONNECT with an object": ['40{"a":1}'],
  "CONNECT with text": ['40"text"'],
  "CONNECT with a list": ["40[]"],
  "CONNECT with null": ["40null"],
  "CONNECT with bad JSON": ["40{"],
  "CONNECT to an unknown namespace": ["40/nowhere,"],
  "CONNECT to a namespace with a query": ["40/relay-direct?a=b,"],
  "a binary frame": [Buffer.from([1])],
};

const bodyOf = (frames) => frames.map((frame) => (Buffer.isBuffer(frame) ? `b${frame.toString("base64")}` : frame)).join("\x1e");

function byWebSocket([name, frames]) {
  return [name, async (node, tape) => tape.frames(await tape.join(node), frames)];
}

function byWebSocketAtFirst([name, frames]) {
  return [name, async (node, tape) => tape.frames(await tape.open(node), frames, CONNECT)];
}

function byPolling([name, frames]) {
  const script = async (node, tape) => {
    const session = await tape.joinPolling(node);
    await tape.exchange("post", session.post(bodyOf(frames)));
    await tape.polls(session, bodyOf(frames));
  };
  return [name, script];
}

const each = (scripts, form) => Object.fromEntries(Object.entries(scripts).map(form));

/**
 * Bodies that are posted one after the other, each after the answer to a CONNECT in the one before: what follows in
 * the same body, the official server may have read before it acts, and a node before it has agreed.
 */
const inTurn = (...bodies) => async (node, tape) => {
  const session = await tape.joinPolling(node);
  for (const body of bodies) {
    await tape.exchange("post", session.post(body));
    if (!(await tape.connected(session, body))) return;
  }
  await tape.polls(session);
};

export const scripts = {
  ...named("in turn", {
    "a DISCONNECT and a CONNECT": inTurn("41", "40"),
    "a DISCONNECT and an event": inTurn("41", '42["echo",1]'),
    "a DISCONNECT and another": inTurn("41", "41"),
    "a DISCONNECT and an ack": inTurn("41", "430[]"),
    "a CONNECT, an event there, and a DISCONNECT": inTurn("40/relay-direct,", '42/relay-direct,["echo",1]', "41/relay-direct,"),
  }),
  ...named("by websocket", each(AFTER_CONNECT, byWebSocket)),
  ...named("by websocket, not yet connected", each(BEFORE_CONNECT, byWebSocketAtFirst)),
  ...named("by polling", each(AFTER_CONNECT, byPolling)),
};
