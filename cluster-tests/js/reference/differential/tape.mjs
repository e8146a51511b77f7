// What came back from a server, in a form that another server's can be compared with.

import { request, requestWebSocket } from "../../lib/http.mjs";
import { Polling, SEPARATOR, Socket, Tcp } from "../../lib/raw.mjs";
import { again, within } from "../../lib/until.mjs";

/** Of the connection, different by nature, or HTTP's way to say how long a body is. */
const IGNORED = ["date", "connection", "keep-alive", "sec-websocket-accept", "transfer-encoding", "content-length"];
const ECHO = { frame: '42999["echo","fence"]', answer: '43999["fence"]' };
const CONNECT_ANSWER = /^4[04]/;
const ID = /"sid":"[\w-]{20}"/g;

export class Tape {
  lines = [];
  #endings = [];

  /** The part of a test's context that the raw clients use. */
  after(end) {
    this.#endings.push(end);
  }

  async stop() {
    for (const end of this.#endings) await end();
  }

  note(what, value) {
    const shown = Buffer.isBuffer(value) ? `binary ${value.toString("hex")}` : JSON.stringify(value);
    this.lines.push(`${what} → ${shown}`.replace(ID, '"sid":"<id>"').replace(/\\"sid\\":\\"[\w-]{20}\\"/g, '\\"sid\\":\\"<id>\\"').slice(0, 2000));
  }

  /** Notes an HTTP answer whole, but for what differs by nature. */
  answer(what, { status, headers, text }) {
    const shown = Object.entries(headers).filter(([name]) => !IGNORED.includes(name));
    const sorted = Object.fromEntries(shown.sort(([one], [other]) => one.localeCompare(other)));
    this.note(what, { status, headers: sorted, text: text.length > 500 ? `${text.length} characters` : text });
    return { status, headers, text };
  }

  async ask(node, options, what = `${options.method ?? "GET"} ${options.path ?? ""}?${options.query ?? ""}`) {
    return this.answer(what, await request(node, options));
  }

  async askWebSocket(node, query, headers, what = `upgrade ?${query}`) {
    const response = await requestWebSocket(node, query, headers);
    if (response.status !== 101) return this.answer(what, response);
    this.note(what, { status: 101 });
    this.after(() => response.socket.destroy());
    await within("the end of the WebSocket", response.ended);
    this.note(what, "ended");
  }

  /** A GET or a POST of a session, or that it was cut off without an answer. */
  async exchange(what, response) {
    try {
      return this.answer(what, await response);
    } catch (error) {
      this.note(what, /waited/.test(error.message) ? error.message.split(";")[0] : "cut off");
    }
  }

  /**
   * Posts while a GET is pending, on a session that `open` gives; notes both answers, and resolves to the session. That a
   * GET has arrived cannot be seen without ending it; that a request made after it was answered is the best sign from
   * outside. One that arrives later finds no session: then another session is asked.
   */
  async postWhilePolling(open, body) {
    const { session, polled, posted } = await again("a GET in time", async () => {
      const session = await open();
      const pending = session.get();
      await session.post("3");
      const [polled, posted] = await Promise.all([pending, session.post(body)]);
      return polled.status !== 400 && { session, polled, posted };
    });
    this.answer("poll", polled);
    this.answer("post", posted);
    return session;
  }

  openPolling(node) {
    return Polling.open(node);
  }

  joinPolling(node, namespace) {
    return Polling.join(node, namespace);
  }

  open(node, options) {
    return Socket.open(this, node, options);
  }

  join(node, namespace, options) {
    return Socket.join(this, node, namespace, options);
  }

  upgrade(session) {
    return Socket.upgrade(this, session);
  }

  tcp(node) {
    return Tcp.webSocket(this, node);
  }

  /**
   * Sends frames, each CONNECT followed by a wait for its answer, and then one that every living session
   * answers; notes what came until then, or the close.
   */
  async frames(socket, frames, fence = ECHO) {
    const send = (frame) => socket.ws.readyState === 1 && socket.send(frame);
    for (const frame of frames) {
      send(frame);
      if (isConnect(frame) && !(await this.#listen(socket, (answer) => CONNECT_ANSWER.test(answer)))) return;
    }
    if (fence) send(fence.frame);
    await this.#listen(socket, (frame) => fence && String(frame).startsWith(fence.answer));
  }

  /** Notes frames until one is the last; false if the end came first. */
  async #listen(socket, isLast) {
    for (;;) {
      const [frame] = await socket.take(1).catch((error) => {
        if (!socket.closed) throw error;
        return [];
      });
      if (frame === undefined) {
        this.note("close", await socket.end());
        return false;
      }
      this.note("frame", frame);
      if (isLast(frame)) return true;
    }
  }

  /** Polls until the answer to a CONNECT (if one was `posted`) and then to a fence, or the end of the session. */
  async polls(session, posted = "") {
    if (!(await this.connected(session, posted))) return;
    await this.exchange("fence", session.post(ECHO.frame));
    await this.#poll(session, (packet) => packet.startsWith(ECHO.answer));
  }

  /** Polls for the answer to a CONNECT, if one was `posted`; false if the end came first. */
  async connected(session, posted) {
    return !posted.split(SEPARATOR).some(isConnect) || this.#poll(session, (packet) => CONNECT_ANSWER.test(packet));
  }

  /** Notes packets, however many of them a poll brings, until one is the last; false if the end came first. */
  async #poll(session, isLast) {
    for (;;) {
      const response = await session.get();
      if (response.status !== 200) {
        this.answer("poll", response);
        return false;
      }
      const packets = response.text.split(SEPARATOR);
      if (packets.includes("2")) await session.post("3");
      const rest = packets.filter((packet) => packet !== "2");
      rest.forEach((packet) => this.note("packet", packet));
      if (rest.some(isLast)) return true;
    }
  }
}

function isConnect(packet) {
  return typeof packet === "string" && packet.startsWith("40");
}
