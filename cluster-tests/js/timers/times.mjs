// The short times that the nodes of this folder's suites were started with: `settings.sh`.

import { milliseconds } from "../lib/milliseconds.mjs";

const setting = (name) => {
  const text = process.env[`FLOTILLA_${name}`];
  if (!text) throw new Error("the cluster and these suites are started with timers/settings.sh; `make client-test` does it");
  return milliseconds(text);
};

export const PING_INTERVAL = setting("ENGINE__PING_INTERVAL");
export const PING_TIMEOUT = setting("ENGINE__PING_TIMEOUT");
export const CONNECT_TIMEOUT = setting("SOCKETIO__CONNECT_TIMEOUT");

/** For how long a client may be silent. */
export const SILENCE = PING_INTERVAL + PING_TIMEOUT;

/** An end may be seen so many milliseconds early: two processes read their clocks. */
export const EARLY = 100;
