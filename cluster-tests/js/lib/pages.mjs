// Pages in Debian's Chromium, for tests that open them.

import { after, before } from "node:test";
import { chromium } from "playwright-core";
import { PATIENCE } from "./until.mjs";
import { printVersions } from "./versions.mjs";

printVersions("playwright-core");

/** Keeps Chromium from asking the network for anything but the pages: here is none to answer. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export async function launch() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  console.log(`chromium ${browser.version()}`);
  return browser;
}

/** A browser for the tests of a suite; what it gives opens a context of its own for each test that asks. */
export function openBrowser() {
  let browser;
  before(async () => (browser = await launch()));
  after(() => browser?.close());
  return async (t, options) => {
    const context = await browser.newContext(options);
    t.after(() => context.close());
    context.setDefaultTimeout(PATIENCE);
    return context;
  };
}

/** The same for two pages that share cookies, and their list of errors. */
export function twoPages() {
  const open = openBrowser();
  return async (t) => {
    const context = await open(t);
    const errors = [];
    context.on("weberror", (error) => errors.push(error.error().message));
    return { one: await context.newPage(), two: await context.newPage(), errors };
  };
}
