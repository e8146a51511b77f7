"""Measures Flotilla beside socketioxide and the official server, each with its Redis adapter where there are three.

The same load, by `bench`, on servers of one small application. Runs alternate, so that what else the machine does
meets all alike, and the medians are printed as a table; Redis counts to the servers that need it.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SCENARIOS = "idle,connect,echo,bcast,bcast-max,burst,room,rooms-max,dm,join"
FAULTS = ("lost", "doubled", "misordered", "split", "refused", "broken")
DIRECT = ["--namespace", "/relay-direct", "--direct"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    """Until the server listens; one that has ended never will."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), 0.2).close()
        time.sleep(0.05)
    sys.exit(f"{process.args[0]} has ended with {process.returncode}")


@contextlib.contextmanager
def started(command, port, env):
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


class Contestant:
    """So many servers of one kind, and how `bench` is told of them."""

    def __init__(self, name, nodes, command=None, namespace=()):
        self.name, self.nodes, self.command, self.namespace = name, nodes, command, namespace

    def measure(self, scenario, options):
        with contextlib.ExitStack() as running, tempfile.NamedTemporaryFile(suffix=".json") as report:
            bench = [options.bench, "--scenario", scenario, "--seconds", str(options.seconds), "--json", report.name]
            bench += self.servers(running, options)
            done = subprocess.run(
                bench, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            # 1 is for losses and the like, which the report counts.
            if done.returncode > 1:
                sys.exit(f"{self.name}: {done.stdout}")
            return json.load(report)["rows"][0]

    def servers(self, running, options):
        if self.command is None:
            return ["--start", str(self.nodes), "--flotilla", options.flotilla, *self.namespace]
        env, pids, urls = environment(), [], []
        if self.nodes > 1:
            port = free_port()
            redis = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
            pids.append(running.enter_context(started(redis, port, env)))
            env["REDIS_URL"] = f"redis://127.0.0.1:{port}"
        for _ in range(self.nodes):
            port = free_port()
            pids.append(running.enter_context(started([*self.command(options), str(port)], port, env)))
            urls.append(f"http://127.0.0.1:{port}")
        # No order of all receivers is promised by either.
        return ["--urls", ",".join(urls), "--pids", ",".join(map(str, pids)), "--direct"]


def environment():
    """Flotilla's logs are written, not synced, and threads do not interrupt one another, as in the local cluster."""
    return {"FLOTILLA_RAFT__DURABILITY": "os", "FLOTILLA_NODE__SCHEDULING": "batch"} | os.environ


def socketioxide(options):
    return [options.socketioxide]


def official(_options):
    return ["node", str(HERE / "relay.mjs")]


CONTESTANTS = [
    Contestant("1 Flotilla, direct", 1, namespace=DIRECT),
    Contestant("1 Flotilla, replicated", 1),
    Contestant("1 socketioxide", 1, socketioxide),
    Contestant("1 Node", 1, official),
    Contestant("3 Flotilla, direct", 3, namespace=DIRECT),
    Contestant("3 socketioxide, Redis", 3, socketioxide),
    Contestant("3 Flotilla, replicated", 3),
    Contestant("3 Node, Redis", 3, official),
]


def cell(rows):
    each = [row.get("server_cpu_micros_each") or row.get("server_kib_each") or 0 for row in rows]
    text = f"{statistics.median(each):.3g}"
    faults = {fault: sum(row.get(fault) or 0 for row in rows) for fault in FAULTS}
    return text + "".join(f" ({count} {fault})" for fault, count in faults.items() if count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default="target/release/bench")
    parser.add_argument("--flotilla", default="target/release/flotilla")
    parser.add_argument("--socketioxide", default="target/compare/release/compare")
    parser.add_argument("--scenario", default=SCENARIOS, help="names, with commas between them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    print("| µs of server CPU each (idle: KiB) |", " | ".join(c.name for c in CONTESTANTS), "|")
    print("| --- |", " --- |" * len(CONTESTANTS))
    for scenario in options.scenario.split(","):
        rows = {contestant: [] for contestant in CONTESTANTS}
        for turn in range(options.rounds):
            for contestant in CONTESTANTS if turn % 2 == 0 else CONTESTANTS[::-1]:
                rows[contestant].append(contestant.measure(scenario, options))
        print(f"| `{scenario}` |", " | ".join(cell(rows[c]) for c in CONTESTANTS), "|", flush=True)


if __name__ == "__main__":
    main()
