"""Plays the shared scenarios (../matrix/scenarios.json) with python-socketio, asyncio and threads.

What the steps mean is said in ../matrix/README.md. Both clients are driven by one player, in terms of a small
`Connection` that each of them has. Run it as `matrix.py` with FLOTILLA_NODES naming a cluster's nodes.json.
"""

import asyncio
import json
import logging
import os
import socket
import sys
import time
import traceback
import uuid
from importlib.metadata import version
from pathlib import Path

import socketio
from engineio.payload import Payload

# As its documentation advises for busy servers: beyond 16 packets in one polling body the client gives up.
Payload.max_decode_packets = 1000
PATIENCE = 20.0
SCENARIOS = json.loads((Path(__file__).parent / "../matrix/scenarios.json").read_text())
MODES = {"polling only": ["polling"], "websocket only": ["websocket"], "upgrade": ["polling", "websocket"]}
MSGPACK = os.environ.get("FLOTILLA_SOCKETIO__PARSER") == "msgpack"

ABILITIES = {"id", "auth", "multiplexing", "transport", "wide numbers", "binary event", "binary anywhere", "answers", "concurrent acks"}
if MSGPACK:
    # The official server's parser, notepack, writes whole numbers beyond 64 bits as others.
    ABILITIES.remove("wide numbers")
# What this client has not: it knows no recovery; it acks with nothing what it has no answer to; it closes the transport
# before its DISCONNECT is written; and after a loss by polling it stays away. All that is so with the official server, too.
LACKS = {"wide numbers", "recovery", "silence", "farewell", "loss", "cut", "reconnection"}
WEBSOCKET_ABILITIES = {"loss", "cut", "reconnection"}

SETTINGS = {
    # For each request, of which the first is not tried again; five seconds by default.
    "request_timeout": 20,
    "reconnection_delay": 0.05,
    "reconnection_delay_max": 0.2,
    "randomization_factor": 0,
    "handle_sigint": False,
    "serializer": "msgpack" if MSGPACK else "default",
}
REASONS = {"server": {"server disconnect"}, "client": {"client disconnect"}, "loss": {"transport close", "transport error"}}


class Hall:
    """What one socket heard, and what it will answer."""

    def __init__(self):
        self.connected = False
        self.heard = {}
        self.answers = {}
        self.disconnects = []
        self.refusals = []

    def on_event(self, event, args):
        self.heard.setdefault(event, []).append(plain(list(args)))
        answer = self.answers.get(event)
        return None if answer is None else tuple(answer)

    def on_disconnect(self, reason):
        self.connected = False
        self.disconnects.append(reason)

    def __repr__(self):
        heard = {event: [str(args)[:100] for args in list[-5:]] for event, list in self.heard.items()}
        return f"connected {self.connected}, disconnects {self.disconnects}, refusals {self.refusals}, heard {heard}"


class Threads:
    """A connection by `socketio.Client`."""

    name = "threads"

    def __init__(self, halls, reconnection=True):
        self.client = socketio.Client(reconnection=reconnection, **SETTINGS)
        for namespace, hall in halls.items():
            self.listen(namespace, hall)

    def listen(self, namespace, hall):
        def connected():
            hall.connected = True

        on = self.client.on
        on("connect", connected, namespace=namespace)
        on("connect_error", hall.refusals.append, namespace=namespace)
        on("disconnect", hall.on_disconnect, namespace=namespace)
        on("*", lambda event, *args: hall.on_event(event, args), namespace=namespace)

    async def connect(self, url, transports, auth, namespaces):
        def work():
            self.client.connect(url, transports=transports, auth=auth, namespaces=namespaces, wait=False)

        await asyncio.to_thread(work)

    async def emit(self, event, args, namespace, callback=None):
        await asyncio.to_thread(self.client.emit, event, tuple(args), namespace, callback)

    async def disconnect(self):
        await asyncio.to_thread(self.client.disconnect)

    async def cut(self):
        # Without a word of Engine.IO or WebSocket.
        self.client.eio.ws.sock.shutdown(socket.SHUT_RDWR)

    async def close(self):
        await asyncio.to_thread(self.client.shutdown)


class Asyncio:
    """A connection by `socketio.AsyncClient`."""

    name = "asyncio"

    def __init__(self, halls, reconnection=True):
        self.client = socketio.AsyncClient(reconnection=reconnection, **SETTINGS)
        for namespace, hall in halls.items():
            self.listen(namespace, hall)

    def listen(self, namespace, hall):
        async def connected():
            hall.connected = True

        async def refused(error):
            hall.refusals.append(error)

        async def disconnected(reason):
            hall.on_disconnect(reason)

        async def event(event, *args):
            return hall.on_event(event, args)

        on = self.client.on
        on("connect", connected, namespace=namespace)
        on("connect_error", refused, namespace=namespace)
        on("disconnect", disconnected, namespace=namespace)
        on("*", event, namespace=namespace)

    async def connect(self, url, transports, auth, namespaces):
        await self.client.connect(url, transports=transports, auth=auth, namespaces=namespaces, wait=False)

    async def emit(self, event, args, namespace, callback=None):
        await self.client.emit(event, tuple(args), namespace, callback)

    async def disconnect(self):
        await self.client.disconnect()

    async def cut(self):
        await self.client.eio.ws.close()

    async def close(self):
        await self.client.shutdown()


class Client:
    """One socket of a connection."""

    def __init__(self, connection, namespace, hall):
        self.connection = connection
        self.namespace = namespace
        self.hall = hall

    async def ask(self, event, args):
        answered = []
        await self.connection.emit(event, args, self.namespace, callback=lambda *got: answered.append(list(got)))
        await until(f"the ack of {event}", lambda: answered, self.hall)
        return plain(answered[0])


class Play:
    """One run of a scenario."""

    def __init__(self, kind, transports, urls):
        self.kind = kind
        self.transports = transports
        self.urls = urls
        self.run = f"run-{uuid.uuid4().hex[:8]}"
        self.clients = {}
        self.connections = []
        self.saved = {}

    async def play(self, scenario):
        try:
            for index, step in enumerate(scenario["steps"]):
                perform = getattr(self, "do_" + step["do"].replace(" ", "_"))
                try:
                    await perform(step)
                except Exception as error:
                    raise AssertionError(f"step {index + 1}, {str(step)[:200]}: {error!r}") from error
        finally:
            for connection in self.connections:
                await connection.close()

    async def open(self, step, reconnection=True):
        several = isinstance(step["who"], list)
        names = step["who"] if several else [step["who"]]
        namespaces = step["namespaces"] if several else [step.get("namespace", "/")]
        halls = {namespace: Hall() for namespace in namespaces}
        connection = self.kind(halls, reconnection)
        self.connections.append(connection)
        for name, namespace in zip(names, namespaces):
            self.clients[name] = Client(connection, namespace, halls[namespace])
        await connection.connect(self.urls[step.get("node", 0)], self.transports, step.get("auth"), namespaces)
        return [self.clients[name] for name in names]

    async def do_connect(self, step):
        for client in await self.open(step):
            await until("a connection", lambda: client.hall.connected, client.hall)

    async def do_refused(self, step):
        [client] = await self.open(step, reconnection=False)
        await until("a refusal", lambda: client.hall.refusals, client.hall)
        expected = {"message": step["message"]}
        if "data" in step:
            expected["data"] = step["data"]
        equal(client.hall.refusals[0], expected)
        equal(client.hall.connected, False)

    async def do_call(self, step):
        give_up = time.monotonic() + (PATIENCE if step.get("eventually") else 0)
        while True:
            got = await self.clients[step["who"]].ask(step["event"], self.values(step["args"]))
            if "save" in step:
                self.saved[step["save"]] = got[0]
                return
            try:
                return equal(got, plain(self.values(step["acked"])))
            except AssertionError:
                if time.monotonic() >= give_up:
                    raise

    async def do_calls(self, step):
        client = self.clients[step["who"]]
        sent = [self.values(step["args"], n) for n in range(step["times"])]
        answers = await asyncio.gather(*(client.ask(step["event"], args) for args in sent))
        equal(answers, plain(sent))

    async def do_emit(self, step):
        client = self.clients[step["who"]]
        for n in range(step.get("times", 1)):
            await client.connection.emit(step["event"], self.values(step["args"], n), client.namespace)

    async def do_round_trip(self, step):
        client = self.clients[step["who"]]
        args = self.values(step["args"])
        equal(await client.ask("echo", args), plain(args))
        await client.connection.emit("please", ["back to you", *args], client.namespace)
        await self.do_heard({"who": step["who"], "event": "back to you", "list": [step["args"]]})

    async def do_answer(self, step):
        self.clients[step["who"]].hall.answers[step["event"]] = self.values(step["with"])

    async def do_heard(self, step):
        hall = self.clients[step["who"]].hall
        listed = step.get("list") or [step["args"]] * step["times"]
        expected = [plain(self.values(args, n)) for n, args in enumerate(listed)]
        heard = lambda: hall.heard.get(step["event"], [])
        await until(f"{len(expected)} of {step['event']}", lambda: len(heard()) >= len(expected), hall)
        equal(heard(), expected)
        del hall.heard[step["event"]]

    async def do_seen(self, step):
        hall = self.clients[step["who"]].hall
        expected = canonical(plain(self.values(step["args"])))
        count = len(step["args"]) if step.get("leading") else None
        heard = lambda: [canonical(args[:count]) for args in hall.heard.get(step["event"], [])]
        await until(f"{step['event']} {expected}", lambda: expected in heard(), hall)

    async def do_id(self, step):
        client = self.clients[step["who"]]
        id = client.connection.client.get_sid(client.namespace)
        equal(await client.ask("whoami", []), [id])
        equal(await client.ask("dm", [id, "to myself"]), [])
        await self.do_heard({"who": step["who"], "event": "msg", "list": [["to myself"]]})

    async def do_travels(self, step):
        client = self.clients[step["who"]]
        wanted = self.transports[-1]
        transport = lambda: client.connection.client.transport()
        await until(f"the transport {wanted}", lambda: transport() == wanted, client.hall)

    async def do_leave(self, step):
        await self.clients[step["who"]].connection.disconnect()

    async def do_cut(self, step):
        await self.clients[step["who"]].connection.cut()

    async def do_gone(self, step):
        hall = self.clients[step["who"]].hall
        await until("its disconnect", lambda: hall.disconnects, hall)
        reason = hall.disconnects.pop(0)
        if reason not in REASONS[step["by"]]:
            raise AssertionError(f"disconnected by {reason}, not by {step['by']}")

    async def do_back(self, step):
        hall = self.clients[step["who"]].hall
        await until("a new connection", lambda: hall.connected, hall)

    async def do_same(self, step):
        equal(*(self.saved[name] for name in step["these"]))

    async def do_differ(self, step):
        one, other = (self.saved[name] for name in step["these"])
        if one == other:
            raise AssertionError(f"both are {one}")

    def values(self, args, n=0):
        return [self.expand(value, n) for value in args]

    def expand(self, value, n):
        """What a value of the list stands for."""
        if isinstance(value, list):
            return [self.expand(each, n) for each in value]
        if not isinstance(value, dict):
            return value
        if "$" in value:
            return self.saved[value["$"]]
        if "$unique" in value:
            return f"{value['$unique']} {self.run}"
        if "$n" in value:
            return n
        if "$bytes" in value:
            return bytes(value["$bytes"])
        if "$pattern" in value:
            return bytes(index % 251 for index in range(value["$pattern"]))
        if "$text" in value:
            return value["$text"] * value["times"]
        return {key: self.expand(each, n) for key, each in value.items()}


def plain(value):
    """A value with its binary parts written out, so that JSON compares it."""
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return {"$hex": value.hex()} if isinstance(value, (bytes, bytearray)) else value


def canonical(value):
    # Python holds True equal to 1; their JSON differs.
    return json.dumps(value, sort_keys=True)


def equal(got, expected):
    one, other = canonical(got), canonical(expected)
    if one != other:
        raise AssertionError(f"got {one[:500]}, expected {other[:500]}")


async def until(what, probe, state):
    give_up = time.monotonic() + PATIENCE
    while not probe():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited for {what}; last state: {state!r}")
        await asyncio.sleep(0.005)


def scenarios_for(client, transports):
    """The scenarios for a client; says which ones are not for it."""
    able = ABILITIES | (WEBSOCKET_ABILITIES if transports[-1] == "websocket" else set())
    unknown = {need for scenario in SCENARIOS for need in scenario.get("needs", [])} - ABILITIES - LACKS
    assert not unknown, f"no such need: {unknown}"
    played = [scenario for scenario in SCENARIOS if able.issuperset(scenario.get("needs", []))]
    print(f"{client} plays {len(played)} of {len(SCENARIOS)} scenarios")
    for scenario in SCENARIOS:
        if scenario not in played:
            print(f"  not for it, lacking {sorted(set(scenario['needs']) - able)}: {scenario['name']}")
    return played


async def main():
    urls = [node["url"] for node in json.loads(Path(os.environ["FLOTILLA_NODES"]).read_text())]
    urls = [urls[index % len(urls)] for index in range(3)]
    packages = ("python-socketio", "python-engineio", "aiohttp", "requests", "websocket-client", "msgpack")
    print(f"python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in packages))
    passed, failed = 0, []
    for kind in (Asyncio, Threads):
        for mode, transports in MODES.items():
            title = f"python-socketio {kind.name}{' with msgpack' if MSGPACK else ''}, {mode}"
            for scenario in scenarios_for(title, transports):
                started = time.monotonic()
                try:
                    await Play(kind, transports, urls).play(scenario)
                    passed += 1
                    print(f"  ✔ {scenario['name']} ({(time.monotonic() - started) * 1000:.0f}ms)", flush=True)
                except Exception as error:
                    failed.append(f"{title}: {scenario['name']}: {error}")
                    print(f"  ✖ {scenario['name']}: {error}", flush=True)
                    traceback.print_exc()
    print(f"ℹ tests {passed + len(failed)}\nℹ pass {passed}\nℹ fail {len(failed)}")
    return failed


if __name__ == "__main__":
    # The clients report each lost connection, which some scenarios are about, on standard error.
    logging.disable(logging.ERROR)
    failures = asyncio.run(main())
    for failure in failures:
        print(f"✖ {failure}")
    # Threads of a client that is still trying to reconnect would keep the process alive.
    sys.stdout.flush()
    os._exit(1 if failures else 0)
