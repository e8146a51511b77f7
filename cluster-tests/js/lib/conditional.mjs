// Tests of what only some set-ups have: elsewhere they are not there, rather than skipped.

import { test } from "node:test";

export const testIf = (condition) => (condition ? test : () => {});
