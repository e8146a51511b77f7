// Plays raw scripts against the official server and against Flotilla, and compares what comes back, byte for byte:
// status, headers, bodies, frames, close codes. Ids are replaced by their place.
//
// `differential.sh` starts it, with the official server's nodes in FLOTILLA_NODES and ours in SUBJECT_NODES. What may
// differ is listed, with its reason, in `differential/accepted.mjs`; an entry there that differs no longer is an error, too.

import { readFileSync } from "node:fs";
import { printVersions } from "../lib/versions.mjs";
import { within } from "../lib/until.mjs";
import { accepted } from "./differential/accepted.mjs";
import { scripts as eio3 } from "./differential/eio3.mjs";
import { scripts as http } from "./differential/http.mjs";
import { scripts as polling } from "./differential/polling.mjs";
import { scripts as socketio } from "./differential/socketio.mjs";
import { scripts as websocket } from "./differential/websocket.mjs";
import { Tape } from "./differential/tape.mjs";

printVersions("socket.io", "engine.io", "ws");

const [official] = JSON.parse(readFileSync(process.env.FLOTILLA_NODES, "utf8"));
const [subject] = JSON.parse(readFileSync(process.env.SUBJECT_NODES, "utf8"));
const allowsEio3 = process.env.FLOTILLA_ENGINE__ALLOW_EIO3 === "true";
const scripts = { ...http, ...websocket, ...polling, ...socketio, ...(allowsEio3 && eio3) };

let same = 0;
const faults = [];
const explained = new Set();
for (const [name, script] of Object.entries(scripts)) {
  const [expected, got] = await Promise.all([record(script, official), record(script, subject)]);
  const differences = compare(expected, got);
  const reason = accepted(name);
  if (differences.length === 0 && !reason) {
    same += 1;
  } else if (differences.length > 0 && reason) {
    explained.add(name);
    console.log(`≈ ${name}: ${reason}`);
    if (process.env.SHOW) console.log(differences.join("\n"));
  } else if (reason) {
    faults.push(name);
    console.log(`✖ ${name}: does not differ any more; take it from the list`);
  } else {
    faults.push(name);
    console.log(`✖ ${name}\n${differences.join("\n")}`);
  }
}
console.log(`ℹ tests ${Object.keys(scripts).length}\nℹ pass ${same + explained.size}\nℹ fail ${faults.length}`);
console.log(`of these ${explained.size} differ for a reason given above`);
process.exit(faults.length > 0 ? 1 : 0);

async function record(script, node) {
  const tape = new Tape();
  try {
    await within("the script", script(node, tape));
  } catch (error) {
    tape.note("failed", error.message.replaceAll(node.url, "<url>").slice(0, 300));
  }
  await tape.stop();
  return tape.lines;
}

function compare(expected, got) {
  const differences = [];
  for (let index = 0; index < Math.max(expected.length, got.length); index += 1) {
    if (expected[index] !== got[index]) differences.push(`    official: ${expected[index]}\n    flotilla: ${got[index]}`);
  }
  return differences;
}
