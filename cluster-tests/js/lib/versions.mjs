// Says which packages speak to the nodes, so that a log of a run is evidence of something definite.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const require = createRequire(import.meta.url);

const printed = new Set();

/** Prints one line with Node's version and those of the installed packages named that no line has yet. */
export function printVersions(...packages) {
  const news = packages.filter((name) => !printed.has(name));
  if (news.length === 0) return;
  news.forEach((name) => printed.add(name));
  const versions = news.map((name) => `${name} ${version(name)}`);
  console.log(`node ${process.versions.node}, ${versions.join(", ")}`);
}

/** Folder of an installed package. */
export function packageFolder(name) {
  // Not every package exports its own package.json, so look it up by place.
  for (const folder of require.resolve.paths(name)) {
    try {
      readFileSync(join(folder, name, "package.json"));
      return join(folder, name);
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
  throw new Error(`${name} is not installed; run npm ci`);
}

function version(name) {
  return JSON.parse(readFileSync(join(packageFolder(name), "package.json"), "utf8")).version;
}
