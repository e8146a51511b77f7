// Runs the client suites, and those here, through a round-robin balancer: to them it is every node of the cluster.

import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { startBalancer } from "../lib/haproxy.mjs";
import { nodes } from "../lib/nodes.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const suites = ["client", "balancer"].flatMap((folder) => files(join(here, "..", folder)));
const directory = mkdtempSync(join(tmpdir(), "flotilla-balancer-"));
let code = 0;
try {
  for (const mode of ["tcp", "http"]) code ||= await run(mode);
} finally {
  rmSync(directory, { recursive: true });
}
process.exitCode = code;

/** All suites through HAProxy in this mode; resolves to the exit code. */
async function run(mode) {
  const balancer = await startBalancer(mode, nodes, directory);
  try {
    console.log(`through HAProxy in mode ${mode}`);
    const list = join(directory, `nodes-${mode}.json`);
    writeFileSync(list, JSON.stringify(nodes.map((node) => ({ ...node, url: balancer.url, isBalancer: true }))));
    const options = ["--test-reporter=spec", "--test-concurrency=1", "--test-timeout=900000"];
    const child = spawn(process.execPath, ["--import", join(here, "fresh.mjs"), "--test", ...options, ...suites], {
      stdio: "inherit",
      env: { ...process.env, FLOTILLA_NODES: list },
    });
    return await new Promise((resolve) => child.on("exit", (exit) => resolve(exit ?? 1)));
  } finally {
    await balancer.stop();
  }
}

function files(folder) {
  return readdirSync(folder).filter((name) => name.endsWith(".test.mjs")).map((name) => join(folder, name)).sort();
}
