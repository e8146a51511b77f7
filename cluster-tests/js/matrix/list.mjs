// The shared list of scenarios, and what of it a client plays.

import { readFileSync } from "node:fs";

const SCENARIOS = JSON.parse(readFileSync(new URL("../../matrix/scenarios.json", import.meta.url), "utf8"));

/** Everything that a scenario may ask of a client. */
const NEEDS = [
  "id",
  "auth",
  "multiplexing",
  "transport",
  "wide numbers",
  "binary event",
  "binary anywhere",
  "answers",
  "silence",
  "concurrent acks",
  "loss",
  "reconnection",
  "cut",
  "farewell",
  "recovery",
];

/** What the JavaScript client can, in a version since 4.6 and before. */
export function abilities({ recovers, msgpack }) {
  // notepack, under the msgpack parser, writes whole numbers beyond 64 bits as others.
  return NEEDS.filter((need) => (recovers || need !== "recovery") && (!msgpack || need !== "wide numbers"));
}

/** The scenarios for a client with these abilities; says which ones are not for it. */
export function scenariosFor(client, abilities) {
  const needs = (scenario) => scenario.needs ?? [];
  for (const unknown of SCENARIOS.flatMap(needs).filter((need) => !NEEDS.includes(need))) throw new Error(`no such need: ${unknown}`);
  const played = SCENARIOS.filter((scenario) => needs(scenario).every((need) => abilities.includes(need)));
  const rest = SCENARIOS.filter((scenario) => !played.includes(scenario));
  console.log(`${client} plays ${played.length} of ${SCENARIOS.length} scenarios`);
  for (const { name, needs } of rest) console.log(`  not for it, lacking ${needs.filter((need) => !abilities.includes(need))}: ${name}`);
  return played;
}
