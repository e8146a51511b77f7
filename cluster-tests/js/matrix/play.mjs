// Plays a scenario of `../../matrix/scenarios.json` with a socket.io-client of any version, in Node.js and in a page.
//
// Nothing here may be of one of the two worlds alone. What the steps mean is said in `../../matrix/README.md`.

const PATIENCE = 20_000;
/** Reconnecting is a part of many scenarios; the clients' own delays of a second and more would be most of their time. */
const QUICK = { reconnectionDelay: 50, reconnectionDelayMax: 200, randomizationFactor: 0 };

/**
 * `with`: the client's `io`, the `urls` of three nodes, its `transports` and `options`, the `run`'s unique name,
 * and its `generation` of Engine.IO, which says how it carries auth and what it calls an error.
 */
export async function play(scenario, world) {
  const stage = { ...world, clients: new Map(), saved: new Map() };
  try {
    for (const [index, step] of scenario.steps.entries()) {
      const perform = STEPS[step.do];
      if (!perform) throw new Error(`no such step: ${step.do}`);
      try {
        await perform(stage, step);
      } catch (error) {
        throw new Error(`step ${index + 1}, ${JSON.stringify(step).slice(0, 200)}: ${error.message}`);
      }
    }
  } finally {
    for (const client of stage.clients.values()) client.close();
  }
}

const STEPS = {
  async connect(stage, step) {
    if (Array.isArray(step.who)) return connectBoth(stage, step);
    const client = open(stage, step);
    await client.until("a connection", () => client.socket.connected);
  },

  async refused(stage, step) {
    const client = open(stage, step, { reconnection: false });
    await client.until("a refusal", () => client.refusals.length > 0);
    const [refusal] = client.refusals;
    if (stage.generation === 4) {
      equal(refusal, { message: step.message, ...(step.data && { data: step.data }) });
    } else {
      equal(refusal, step.data ?? { message: step.message });
    }
    equal(client.socket.connected, false);
    client.close();
  },

  async call(stage, step) {
    const giveUp = Date.now() + (step.eventually ? PATIENCE : 0);
    for (;;) {
      const got = await ask(stage, step, 0);
      if (step.save) return stage.saved.set(step.save, got[0]);
      try {
        return equal(got, plain(stage.values(step.acked)));
      } catch (error) {
        if (Date.now() >= giveUp) throw error;
      }
    }
  },

  async calls(stage, step) {
    const numbers = Array.from({ length: step.times }, (_, n) => n);
    const answers = await Promise.all(numbers.map((n) => ask(stage, step, n)));
    equal(answers, numbers.map((n) => plain(stage.values(step.args, n))));
  },

  emit(stage, step) {
    for (let n = 0; n < (step.times ?? 1); n += 1) {
      stage.client(step).socket.emit(step.event, ...stage.values(step.args, n));
    }
  },

  async "round trip"(stage, step) {
    const args = plain(stage.values(step.args));
    equal(await ask(stage, { ...step, event: "echo" }, 0), args);
    stage.client(step).socket.emit("please", "back to you", ...stage.values(step.args));
    await STEPS.heard(stage, { who: step.who, event: "back to you", list: [step.args] });
  },

  answer(stage, step) {
    stage.client(step).answers.set(step.event, stage.values(step.with));
  },

  async heard(stage, step) {
    const client = stage.client(step);
    const list = step.list ?? Array.from({ length: step.times }, () => step.args);
    const expected = list.map((args, n) => plain(stage.values(args, n)));
    const heard = () => client.heard.get(step.event) ?? [];
    await client.until(`${expected.length} of ${step.event}`, () => heard().length >= expected.length);
    equal(heard().map((args, n) => (step.leading ? args.slice(0, expected[n]?.length) : args)), expected);
    client.heard.delete(step.event);
  },

  async seen(stage, step) {
    const client = stage.client(step);
    const expected = JSON.stringify(plain(stage.values(step.args)));
    const heard = () => client.heard.get(step.event) ?? [];
    const fits = (args) => JSON.stringify(step.leading ? args.slice(0, step.args.length) : args) === expected;
    await client.until(`${step.event} ${expected}`, () => heard().some(fits));
  },

  async id(stage, step) {
    const { id } = stage.client(step).socket;
    if (!step.alias) equal(await ask(stage, { ...step, event: "whoami", args: [] }, 0), [id]);
    equal(await ask(stage, { ...step, event: "dm", args: [id, "to myself"] }, 0), []);
    await STEPS.heard(stage, { who: step.who, event: "msg", list: [["to myself"]] });
  },

  travels(stage, step) {
    const client = stage.client(step);
    const wanted = stage.transports.at(-1);
    return client.until(`the transport ${wanted}`, () => client.transport === wanted);
  },

  leave(stage, step) {
    stage.client(step).socket.disconnect();
  },

  cut(stage, step) {
    const client = stage.client(step);
    if (step.stays === "away") client.socket.io.reconnection(false);
    client.socket.io.engine.close();
  },

  async gone(stage, step) {
    const client = stage.client(step);
    await client.until("its disconnect", () => client.disconnects.length > 0);
    const reason = client.disconnects.shift();
    if (!REASONS[step.by].includes(reason)) throw new Error(`disconnected by ${reason}, not by ${step.by}`);
  },

  async back(stage, step) {
    const client = stage.client(step);
    if (step.node !== undefined) {
      client.socket.io.uri = stage.urls[step.node];
      client.socket.io.reconnection(true);
      client.socket.connect();
    }
    await client.until("a new connection", () => client.socket.connected);
  },

  recovered(stage, step) {
    equal(stage.client(step).socket.recovered ?? false, step.is);
  },

  same(stage, step) {
    const [one, other] = step.these.map((name) => stage.saved.get(name));
    equal(one, other);
  },

  differ(stage, step) {
    const [one, other] = step.these.map((name) => stage.saved.get(name));
    if (one === other) throw new Error(`both are ${one}`);
  },
};

const REASONS = {
  server: ["io server disconnect"],
  client: ["io client disconnect"],
  loss: ["transport close", "transport error", "forced close"],
};

/** One socket, what it heard, and what it will answer. */
class Client {
  heard = new Map();
  answers = new Map();
  refusals = [];
  disconnects = [];

  constructor(socket, generation) {
    this.socket = socket;
    socket.on("disconnect", (reason) => this.disconnects.push(reason));
    if (generation === 4) {
      socket.on("connect_error", (error) => this.refusals.push({ message: error.message, ...(error.data && { data: error.data }) }));
    } else {
      socket.on("error", (error) => this.refusals.push(error));
    }
    this.listen();
  }

  /** Client 2.x knows no `onAny`, so the one function that every version hands each event to is watched. */
  listen() {
    const { socket } = this;
    const onevent = socket.onevent;
    socket.onevent = (packet) => {
      const [event, ...args] = packet.data ?? [];
      if (!this.heard.has(event)) this.heard.set(event, []);
      this.heard.get(event).push(plain(args));
      if (packet.id !== undefined && packet.id !== null && this.answers.has(event)) {
        socket.ack(packet.id)(...this.answers.get(event));
      }
      onevent.call(socket, packet);
    };
  }

  get transport() {
    return this.socket.io.engine?.transport?.name;
  }

  async until(what, probe) {
    const giveUp = Date.now() + PATIENCE;
    while (!probe()) {
      if (Date.now() > giveUp) throw new Error(`waited for ${what}; last state: ${JSON.stringify(this.state())}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  state() {
    const { disconnects, refusals } = this;
    const heard = Object.fromEntries([...this.heard].map(([event, list]) => [event, list.slice(-5)]));
    return { connected: this.socket.connected, id: this.socket.id, transport: this.transport, disconnects, refusals, heard };
  }

  close() {
    this.socket.disconnect();
    // Other namespaces of the manager would keep the connection, and so the process, alive.
    const manager = this.socket.io;
    manager.reconnection(false);
    manager.engine?.close();
  }
}

function open(stage, step, options = {}) {
  equip(stage);
  const namespace = step.namespace ?? "/";
  // The older protocol has no auth of its own: it is the namespace's query.
  const query = step.auth && stage.generation === 3 ? `?${new URLSearchParams(step.auth)}` : "";
  const socket = stage.io(stage.urls[step.node ?? 0] + namespace + query, {
    transports: stage.transports,
    forceNew: true,
    ...QUICK,
    ...(step.auth && { auth: step.auth }),
    ...stage.options,
    ...options,
  });
  return enlist(stage, step.who, socket);
}

async function connectBoth(stage, step) {
  const [first, second] = step.namespaces;
  const one = open(stage, { ...step, who: step.who[0], namespace: first });
  const two = enlist(stage, step.who[1], one.socket.io.socket(second));
  two.socket.connect();
  await one.until("a connection", () => one.socket.connected);
  await two.until("a connection", () => two.socket.connected);
}

function enlist(stage, who, socket) {
  const client = new Client(socket, stage.generation);
  stage.clients.set(who, client);
  return client;
}

/** The two look-ups that steps need. */
function equip(stage) {
  // Client 2.x takes only Node's own type for binary.
  stage.binary ??= (bytes) => bytes;
  stage.client ??= (step) => {
    if (!stage.clients.has(step.who)) throw new Error(`nobody is called ${step.who}`);
    return stage.clients.get(step.who);
  };
  stage.values ??= (args, n) => args.map((value) => expand(stage, value, n));
}

function ask(stage, step, n) {
  const client = stage.client(step);
  return new Promise((resolve, reject) => {
    const late = setTimeout(
      () => reject(new Error(`no ack of ${step.event}; last state: ${JSON.stringify(client.state())}`)),
      PATIENCE,
    );
    client.socket.emit(step.event, ...stage.values(step.args, n), (...got) => {
      clearTimeout(late);
      resolve(plain(got));
    });
  });
}

/** What a value of the list stands for. */
function expand(stage, value, n) {
  if (Array.isArray(value)) return value.map((each) => expand(stage, each, n));
  if (typeof value !== "object" || value === null) return value;
  if ("$" in value) return stage.saved.get(value.$);
  if ("$unique" in value) return `${value.$unique} ${stage.run}`;
  if ("$n" in value) return n;
  if ("$bytes" in value) return stage.binary(Uint8Array.from(value.$bytes));
  if ("$pattern" in value) return stage.binary(Uint8Array.from({ length: value.$pattern }, (_, index) => index % 251));
  if ("$text" in value) return value.$text.repeat(value.times);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, expand(stage, each, n)]));
}

/** A value with its binary parts written out, so that JSON compares it. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof ArrayBuffer) return plain(new Uint8Array(value));
  if (ArrayBuffer.isView(value)) return { $hex: hex(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function equal(got, expected) {
  const [one, other] = [JSON.stringify(got), JSON.stringify(expected)];
  if (one !== other) throw new Error(`got ${one?.slice(0, 500)}, expected ${other?.slice(0, 500)}`);
}
