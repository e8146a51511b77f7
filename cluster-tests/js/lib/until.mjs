// Waiting for conditions: nothing here waits for a while, and every failure shows the last state seen.

import { inspect } from "node:util";

/** Longer than any wait of a healthy cluster on a busy machine; far below the runner's own limit. */
export const PATIENCE = 20_000;

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

function show(state) {
  return inspect(state, { depth: 4, breakLength: 120, maxArrayLength: 30, maxStringLength: 400 });
}
