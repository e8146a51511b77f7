// A node of a test's own, a cluster by itself, with settings that no other test wants.

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "./until.mjs";

const FLOTILLA = process.env.FLOTILLA_BIN;

/** Starts a node with `settings`, each `section.key=value`; resolves to `{url, stop}` once it serves clients. */
export async function startNode(settings) {
  if (!FLOTILLA) throw new Error("FLOTILLA_BIN must name the binary of a node; `make client-test` sets it");
  const directory = await mkdtemp(join(tmpdir(), "flotilla-own-"));
  const any = "127.0.0.1:0";
  const args = ["--data-dir", directory, "--listen", any, "--admin", any, "--cluster-address", any];
  args.push("--durability", "memory", "--apps", "relay", "--log", "warn");
  const sets = settings.flatMap((setting) => ["--set", setting]);
  // What the nodes of the cluster beside it are told is not for this one.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("FLOTILLA_")));
  const child = spawn(FLOTILLA, [...args, ...sets], { stdio: "inherit", env });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  let failure;
  child.on("error", (error) => (failure = error));
  const bound = join(directory, "addresses.json");
  const stop = async () => {
    child.kill("SIGKILL");
    await ended;
    await rm(directory, { recursive: true });
  };
  try {
    const addresses = await until("a node of the test's own", async () => {
      if (failure || child.exitCode !== null) throw failure ?? new Error(`the node ended with ${child.exitCode}`);
      if (!existsSync(bound)) return undefined;
      const addresses = JSON.parse(readFileSync(bound, "utf8"));
      const ready = await fetch(`http://${addresses.admin}/readyz`).catch(() => undefined);
      return ready?.ok && addresses;
    });
    return { url: `http://${addresses.listen}`, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
