// Pages in Debian's Chromium, for tests that open them.

import { after, before } from "node:test";
import { chromium } from "playwright-core";
import { PATIENCE } from "./until.mjs";

/** Keeps Chromium from asking the network for anything but the pages: here is none to answer. */
export const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A browser for the tests of a suite; what it gives opens two pages that share cookies, and their list of errors. */
export function twoPages() {
  let browser;
  before(async () => {
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  });
  after(() => browser?.close());
  return async (t) => {
    const context = await browser.newContext();
    t.after(() => context.close());
    context.setDefaultTimeout(PATIENCE);
    const errors = [];
    context.on("weberror", (error) => errors.push(error.error().message));
    return { one: await context.newPage(), two: await context.newPage(), errors };
  };
}
