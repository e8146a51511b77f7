// Waiting for conditions: nothing here waits for a while, and every failure shows the last state seen.

import { inspect } from "node:util";

/**
 * Longer than any wait of a healthy cluster on a busy machine; far below the runner's own limit, which is for a whole file.
 * Shorter than the 45 s of the nodes' heartbeat and connect timeout: what they end has not ended for the reason that a
 * test waits for.
 */
export const PATIENCE = 40_000;

/** Resolves to the first truthy value of `probe`, or fails with what `state` shows. */
export async function until(what, probe, state = () => undefined, patience = PATIENCE) {
  const giveUp = Date.now() + patience;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > giveUp) throw new Error(`waited ${patience} ms for ${what}; last state: ${show(await state())}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Settles as `promise` does, or fails with what `state` shows. */
export async function within(what, promise, state = () => undefined, patience = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`waited ${patience} ms for ${what}; last state: ${show(state())}`));
    }, patience);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Attempts it, at most twenty times, until something truthy comes of it: for what a machine may spoil by being slow. */
export async function again(what, attempt) {
  for (let times = 0; times < 20; times += 1) {
    const found = await attempt();
    if (found) return found;
  }
  throw new Error(`tried twenty times for ${what}`);
}

function show(state) {
  return inspect(state, { depth: 4, breakLength: 120, maxArrayLength: 30, maxStringLength: 400 });
}
