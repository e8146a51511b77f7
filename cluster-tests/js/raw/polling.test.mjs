// Long-polling: payloads, overlaps, limits, and each way to end.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { withBystanders } from "../lib/bystander.mjs";
import { request } from "../lib/http.mjs";
import { three } from "../lib/nodes.mjs";
import { Polling, SEPARATOR, Tcp } from "../lib/raw.mjs";
import { again, until } from "../lib/until.mjs";

const [first] = three;

describe("polling", () => {
  withBystanders(three);

  test("a POST is answered ok and a GET brings the answer", async () => {
    const session = await Polling.join(first);
    const posted = await session.post('420["echo","hello"]');
    assert.deepEqual([posted.status, posted.text], [200, "ok"]);
    assert.match(posted.headers["content-type"], /^text\/html/);
    assert.equal(posted.headers["cache-control"], "no-store");
    const polled = await session.get();
    assert.deepEqual([polled.status, polled.text], [200, '430["hello"]']);
    assert.match(polled.headers["content-type"], /^text\/plain; charset=utf-8$/i);
    assert.equal(polled.headers["cache-control"], "no-store");
  });

  test("a GET that came first waits for what is posted later", async () => {
    const session = await Polling.join(first);
    const response = session.get();
    await session.post('420["echo","later"]');
    assert.equal((await response).text, '430["later"]');
  });

  test("one payload carries several packets, in order, both ways", async () => {
    const session = await Polling.join(first);
    const posted = await session.post(['420["echo",1]', '421["echo",2]', '422["echo",3]'].join(SEPARATOR));
    assert.equal(posted.text, "ok");
    assert.deepEqual(await session.take(3), ["430[1]", "431[2]", "432[3]"]);
  });

  test("binary travels as base64 behind its packet, both ways", async () => {
    const session = await Polling.join(first);
    const packets = ['452-7["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', "bAQIDBA==", "b"];
    await session.post(packets.join(SEPARATOR));
    const answer = await session.take(3);
    assert.deepEqual(answer, ['462-7[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', "bAQIDBA==", "b"]);
  });

  test("attachments may come in later payloads than their packet", async () => {
    const session = await Polling.join(first);
    await session.post('451-7["echo",{"_placeholder":true,"num":0}]');
    await session.post("b/+8=");
    assert.deepEqual(await session.take(2), ['461-7[{"_placeholder":true,"num":0}]', "b/+8="]);
  });

  test("unicode is counted in characters nowhere", async () => {
    const session = await Polling.join(first);
    await session.post('420["echo","ü\u{1f6a2}漢"]');
    assert.deepEqual(await session.take(1), ['430["ü\u{1f6a2}漢"]']);
  });

  test("a body may come in pieces that split characters and packets", async () => {
    const session = await Polling.join(first);
    const body = Buffer.from(`420["echo","ü\u{1f6a2}"]${SEPARATOR}421["echo",2]`);
    await session.post(Array.from(body, (byte) => Buffer.from([byte])));
    assert.deepEqual(await session.take(2), ['430["ü\u{1f6a2}"]', "431[2]"]);
  });

  test("keep-alive connections serve one request after the other", async (t) => {
    const session = await Polling.join(first);
    const tcp = new Tcp(t, first.url);
    const host = new URL(first.url).host;
    for (let n = 0; n < 5; n += 1) {
      const body = `42${n}["echo",${n}]`;
      tcp.write(`POST /socket.io/?${session.query} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      await tcp.until("ok", () => tcp.received.toString().endsWith("ok"));
      tcp.received = Buffer.alloc(0);
      tcp.write(`GET /socket.io/?${session.query} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
      await tcp.until("the echo", () => tcp.received.includes(`43${n}[${n}]`));
      tcp.received = Buffer.alloc(0);
    }
    assert.equal(tcp.ended, false);
  });

  test("a second GET beside a pending one is refused, ends the first, and the session", async () => {
    const session = await Polling.open(first);
    const pending = await Promise.all([session.get(), session.get({ query: `${session.query}&t=second` })]);
    const [kept, refused] = pending[0].status === 200 ? pending : pending.toReversed();
    assert.deepEqual([kept.status, kept.text], [200, "1"]);
    assert.equal(refused.status, 400);
    await session.gone();
  });

  test("a second POST beside an unfinished one is refused and ends the session", async (t) => {
    const session = await Polling.open(first);
    const tcp = new Tcp(t, first.url);
    // A head that promises more than is sent: this request stays unfinished.
    tcp.write(`POST /socket.io/?${session.query} HTTP/1.1\r\nHost: ${new URL(first.url).host}\r\nContent-Length: 100\r\n\r\n4`);
    // Until the node has seen that head, other POSTs are answered ok.
    const refused = await until("an overlap", async () => {
      const response = await session.post("3");
      return response.status === 400 && response;
    });
    assert.equal(refused.status, 400);
    await session.gone();
  });

  test("a GET that the client gives up ends the session", async () => {
    // A GET cannot be seen to have arrived without ending it. A request that was made after it, and is answered, is the
    // best sign from outside; if the GET has not arrived by then, the session lives on, and another one has to show it.
    await again("a session that ends", async () => {
      const session = await Polling.join(first);
      const giveUp = new AbortController();
      const abandoned = session.get({ signal: giveUp.signal });
      abandoned.catch(() => {});
      await session.post("3");
      giveUp.abort();
      await assert.rejects(abandoned);
      return session.gone(5000).catch(() => false);
    });
  });

  test("a binary body is refused and ends the session", async () => {
    const session = await Polling.open(first);
    const response = await session.post(Buffer.from([4, 1, 2]), { headers: { "content-type": "application/octet-stream" } });
    assert.equal(response.status, 400);
    await session.gone();
  });

  test("a body over maxPayload is answered 413 and the session goes on", async () => {
    const session = await Polling.join(first);
    const { maxPayload } = session.handshake;
    const exact = `420["echo","${"x".repeat(maxPayload - 14)}"]`;
    const posted = await session.post(exact);
    assert.deepEqual([exact.length, posted.status], [maxPayload, 200]);
    assert.equal((await session.take(1))[0].length, maxPayload - 7);

    const tooLong = `${exact} `;
    assert.equal(await statusOf(session.post(tooLong)), 413);
    const chunks = Array.from({ length: 20 }, () => tooLong.slice(0, 60_000));
    assert.equal(await statusOf(session.post(chunks)), 413);
    await session.works();
  });

  test("a packet of no known type ends the session", async () => {
    for (const body of ["abc", "7", "9hello", "4ok\u001eabc"]) {
      const session = await Polling.open(first);
      // The official server cuts the request off; to answer it is as good. What counts is the end.
      await session.post(body).catch(() => {});
      await session.ended();
    }
  });

  test("a close packet is answered with a noop to the pending GET", async () => {
    // As above: a GET that arrives after the close finds no session.
    const polled = await again("a GET in time", async () => {
      const session = await Polling.open(first);
      const pending = session.get();
      await session.post("3");
      const [polled, posted] = await Promise.all([pending, session.post("1")]);
      assert.equal(posted.status, 200);
      await session.gone();
      return polled.status !== 400 && polled;
    });
    assert.deepEqual([polled.status, polled.text], [200, "6"]);
  });

  test("a close packet with no GET pending ends the session too", async () => {
    const session = await Polling.open(first);
    await session.post("1");
    await session.gone();
  });

  test("packets before the close packet are still handled, those after it are not", async () => {
    const witness = await Polling.join(first);
    const session = await Polling.join(first);
    await session.post(`42["dm","${witness.id}","before"]${SEPARATOR}1${SEPARATOR}42["dm","${witness.id}","after"]`);
    await session.gone();
    await witness.post(`42["dm","${witness.id}","fence"]`);
    const heard = [];
    while (heard.at(-1) !== '42["msg","fence"]') heard.push(...(await witness.take(1)));
    assert.ok(!heard.includes('42["msg","after"]'), String(heard));
  });

  test("leaving the namespace is not the end of the session", async () => {
    const session = await Polling.join(first);
    await session.post("41");
    await session.post("40");
    const [answer] = await session.take(1);
    assert.match(answer, /^40\{"sid":"[\w-]{20}"\}$/);
    await session.works();
  });

  test("a session without a pending GET keeps what comes for it, in order", async () => {
    const session = await Polling.join(first);
    const sender = await Polling.join(three[1]);
    const sent = Array.from({ length: 200 }, (_, n) => `42["dm","${session.id}",${n}]`);
    await sender.post(sent.join(SEPARATOR));
    const heard = await session.take(200);
    assert.deepEqual(heard, Array.from({ length: 200 }, (_, n) => `42["msg",${n}]`));
  });

  test("HEAD and other methods without a session are refused", async () => {
    const response = await request(first, { method: "HEAD", query: "EIO=4&transport=polling" });
    assert.equal(response.status, 400);
  });
});

async function statusOf(response) {
  return (await response).status;
}
