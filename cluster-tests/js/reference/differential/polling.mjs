// Sessions that poll: payloads, bodies, overlaps and ends.

import { named } from "./http.mjs";

/** Posts bodies on a session that has joined nothing, and polls until its end or an answer to a CONNECT. */
const opened = (...bodies) => async (node, tape) => {
  const session = await tape.openPolling(node);
  for (const body of bodies) await tape.exchange("post", session.post(body));
  await tape.exchange("connect", session.post("40"));
  await tape.exchange("poll", session.get());
};

/** The same on a session that has joined the main namespace. */
const joined = (...bodies) => async (node, tape) => {
  const session = await tape.joinPolling(node);
  for (const body of bodies) await tape.exchange("post", session.post(body));
  await tape.polls(session);
};

/** One request on a session that has joined. */
const requested = (options) => async (node, tape) => {
  const session = await tape.joinPolling(node);
  await tape.exchange("request", session.get(options));
  await tape.polls(session);
};

export const scripts = {
  ...named("payload", {
    "of one packet": joined('421["echo","hello"]'),
    "of three packets": joined('421["echo",1]\x1e422["echo",2]\x1e423["echo",3]'),
    "with a byte order mark": joined("\ufeff3"),
    "of a pong": joined("3"),
    "of a noop": joined("6"),
    "of an upgrade": joined("5"),
    "of a ping": joined("2"),
    "of an open packet": joined("0"),
    "of nothing": opened(""),
    "of a separator": opened("\x1e"),
    "of an unknown type": opened("abc"),
    "of type 7": opened("7"),
    "whose second packet is unknown": joined('421["echo",1]\x1eabc'),
    "whose first packet is unknown": joined('abc\x1e421["echo",1]'),
    "of an empty message": opened("4"),
    "of a close packet": opened("1"),
    "of a close packet between others": joined('421["echo",1]\x1e1\x1e422["echo",2]'),
    "of base64": joined('451-7["echo",{"_placeholder":true,"num":0}]\x1ebAQIDBA=='),
    "of empty base64": joined('451-7["echo",{"_placeholder":true,"num":0}]\x1eb'),
    "of base64 without padding": joined('451-7["echo",{"_placeholder":true,"num":0}]\x1ebAQIDBA'),
    "of base64 for URLs": joined('451-7["echo",{"_placeholder":true,"num":0}]\x1eb_-8='),
    "of base64 with a character too many": joined('451-7["echo",{"_placeholder":true,"num":0}]\x1ebAQID!BA=='),
    "of unasked base64": joined("bAQID"),
    "that is text of Engine.IO 3": opened("2:40"),
  }),
  ...named("body", {
    "of the greatest length": joined(`421["echo","${"x".repeat(1_000_000 - 14)}"]`),
    "that is too long": joined("x".repeat(1_000_001)),
    "that is too long, in chunks": joined(Array.from({ length: 20 }, () => "x".repeat(60_000))),
    "that is binary": requested({ method: "POST", body: Buffer.from([4, 1]), headers: { "content-type": "application/octet-stream" } }),
    "that is a form": requested({ method: "POST", body: "d=3", headers: { "content-type": "application/x-www-form-urlencoded" } }),
    "that is not UTF-8": requested({ method: "POST", body: Buffer.from([0x33, 0xff, 0xfe]) }),
    "with a character set": requested({ method: "POST", body: "3", headers: { "content-type": "text/plain;charset=UTF-8" } }),
    "in pieces": joined(Array.from(Buffer.from('421["echo","ü\u{1f6a2}"]'), (byte) => Buffer.from([byte]))),
  }),
  ...named("session request by", {
    PUT: requested({ method: "PUT" }),
    DELETE: requested({ method: "DELETE" }),
    PATCH: requested({ method: "PATCH" }),
    OPTIONS: requested({ method: "OPTIONS" }),
  }),
  ...named("poll", {
    "that is long, compressed": async (node, tape) => {
      const session = await tape.joinPolling(node);
      await tape.exchange("post", session.post(`421["echo","${"x".repeat(5000)}"]`));
      const { headers, status } = await session.get({ headers: { "accept-encoding": "gzip, deflate" } });
      tape.note("poll", { status, encoding: headers["content-encoding"], type: headers["content-type"] });
    },
    "that is long, deflated": async (node, tape) => {
      const session = await tape.joinPolling(node);
      await tape.exchange("post", session.post(`421["echo","${"x".repeat(5000)}"]`));
      const { headers, status } = await session.get({ headers: { "accept-encoding": "deflate" } });
      tape.note("poll", { status, encoding: headers["content-encoding"], type: headers["content-type"] });
    },
    "that is short, compressed": async (node, tape) => {
      const session = await tape.joinPolling(node);
      await tape.exchange("post", session.post('421["echo","x"]'));
      await tape.exchange("poll", session.get({ headers: { "accept-encoding": "gzip, deflate" } }));
    },
    "from Internet Explorer": async (node, tape) => {
      const session = await tape.joinPolling(node);
      const headers = { "user-agent": "Mozilla/5.0 (Trident/7.0; rv:11.0)" };
      await tape.exchange("post", session.post('421["echo","x"]', { headers }));
      await tape.exchange("poll", session.get({ headers }));
    },
    "beside another": async (node, tape) => {
      const session = await tape.openPolling(node);
      const answers = await Promise.all([session.get(), session.get({ query: `${session.query}&t=second` })]);
      answers.sort((one, other) => one.status - other.status);
      for (const answer of answers) tape.answer("poll", answer);
      await tape.exchange("poll", session.get());
    },
    "that is pending as the client closes": async (node, tape) => {
      const session = await tape.postWhilePolling(() => tape.openPolling(node), "1");
      await tape.exchange("poll", session.get());
    },
    "that is pending as the server closes": async (node, tape) => {
      const session = await tape.postWhilePolling(() => tape.joinPolling(node), "40");
      await tape.exchange("poll", session.get());
    },
    "after the server closed": async (node, tape) => {
      const session = await tape.joinPolling(node);
      await tape.exchange("post", session.post("40"));
      await tape.exchange("poll", session.get());
      await tape.exchange("poll", session.get());
      await tape.exchange("post", session.post("3"));
    },
  }),
};
