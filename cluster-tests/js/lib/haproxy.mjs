// A plain balancer before the nodes: HAProxy, round robin, no cookie, nothing sticky.

import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { createServer, connect } from "node:net";
import { join } from "node:path";
import { until } from "./until.mjs";

const HAPROXY = process.env.HAPROXY ?? "/usr/sbin/haproxy";

/** As docs/balancer.md has it, but for timeouts that a test can wait for. */
const MODES = {
  // Each connection goes to the next node, with whatever it carries.
  tcp: "mode tcp",
  // Each request goes to the next node, of one connection too.
  http: "mode http\n  option http-server-close\n  retry-on conn-failure 503",
};

/** Starts HAProxy before `nodes`, with its files in `directory`; resolves to `{url, stop}` once it takes clients. */
export async function startBalancer(mode, nodes, directory) {
  const port = await freePort();
  const file = join(directory, `haproxy-${mode}.cfg`);
  await writeFile(file, configuration(MODES[mode], port, nodes));
  const child = spawn(HAPROXY, ["-db", "-f", file], { stdio: "inherit" });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  let failure;
  child.on("error", (error) => (failure = error));
  await until("HAProxy", () => {
    if (failure || child.exitCode !== null) throw failure ?? new Error(`HAProxy ended with ${child.exitCode}`);
    return isOpen(port);
  });
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () => {
      child.kill("SIGTERM");
      return ended;
    },
  };
}

function configuration(mode, port, nodes) {
  const servers = nodes.map((node) => `  server ${node.id} ${new URL(node.url).host}`);
  return `defaults
  ${mode}
  timeout connect 5s
  retries 3
  option redispatch 1
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
listen flotilla
  bind 127.0.0.1:${port}
  balance roundrobin
${servers.join("\n")}
`;
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function isOpen(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}
