// Queries as npm's sift 3.3.12 answers them, which is what api.io's server asks: generated ones, many of them.

import assert from "node:assert/strict";
import { test } from "node:test";
import sift from "sift";
import { connectApi } from "../lib/apiio.mjs";
import { three } from "../lib/nodes.mjs";

const SEED = Number(process.env.QUERY_SEED ?? Date.now() % 1_000_000);
const QUERIES = 4000;

/** mulberry32: a failure is repeated with its seed. */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const random = generator(SEED);
const pick = (list) => list[Math.floor(random() * list.length)];
const some = (make, most = 3) => Array.from({ length: Math.floor(random() * (most + 1)) }, make);

// No character beyond the first plane: JavaScript takes it for two in a path and at a `.`, the node for one.
const SCALARS = [null, true, false, 0, 1, 2, 3, -1, 1.5, 4, 10, "", "a", "ab", "b", "1", "2", "null", "é", " 3 ", "0x10"];
const KEYS = ["a", "b", "c", "0", "1", "length"];
const scalar = () => pick(SCALARS);

function value(depth = 3) {
  const kind = random();
  if (depth === 0 || kind < 0.45) return scalar();
  if (kind < 0.7) return some(() => value(depth - 1));
  return Object.fromEntries(some(() => [pick(["a", "b", "c", "length"]), value(depth - 1)]));
}

const path = () => some(() => pick(KEYS), 2).concat(pick(KEYS)).join(".");

function operator(depth) {
  const queries = () => some(() => query(depth - 1));
  return pick([
    () => ({ $eq: value(1) }),
    () => ({ $ne: value(1) }),
    () => ({ $gt: value(1) }),
    () => ({ $gte: value(1) }),
    () => ({ $lt: value(1) }),
    () => ({ $lte: value(1) }),
    () => ({ $in: some(() => (random() < 0.8 ? value(1) : query(depth - 1))) }),
    () => ({ $nin: some(() => value(1)) }),
    () => ({ $mod: [pick([0, 1, 2, 3, 2.5, -2]), pick([0, 1, 0.5, -1])] }),
    () => ({ $and: queries() }),
    () => ({ $or: queries() }),
    () => ({ $nor: queries() }),
    () => ({ $not: query(depth - 1) }),
    () => ({ $all: some(() => value(1)) }),
    () => ({ $size: pick([0, 1, 2, 3]) }),
    () => ({ $regex: pick(["^a", "b$", "a|b", "[0-9]", "^.$", "\\d", "^\\w*$", "é"]), ...(random() < 0.3 ? { $options: "i" } : {}) }),
    () => ({ $elemMatch: query(depth - 1) }),
    () => ({ $exists: pick([true, false, 0, 1, "", null]) }),
  ])();
}

function query(depth = 3) {
  const kind = random();
  if (depth <= 0 || kind < 0.15) return scalar();
  if (kind < 0.6) return Object.assign({}, ...some(() => operator(depth), 2));
  return Object.fromEntries(some(() => [path(), random() < 0.6 ? operator(depth) : query(depth - 1)], 2));
}

test(`generated queries are answered as sift does (QUERY_SEED=${SEED})`, async (t) => {
  const api = await connectApi(t, three[2]);
  let matched = 0;
  for (let done = 0; done < QUERIES; done += 200) {
    const cases = Array.from({ length: 200 }, () => ({ query: query(), values: Array.from({ length: 12 }, () => value()) }));
    const found = await Promise.all(cases.map(({ query, values }) => api.tools.matches(query, values)));
    for (const [index, { query, values }] of cases.entries()) {
      const expected = values.map((value) => Boolean(sift(query)(value)));
      matched += expected.filter(Boolean).length;
      assert.deepEqual(found[index], expected, JSON.stringify({ query, values }));
    }
  }
  const share = matched / (QUERIES * 12);
  assert.ok(share > 0.1 && share < 0.9, `a test that says something has matches and none: ${share}`);
});

test("what sift throws on in an emit is refused when it is asked", async (t) => {
  const api = await connectApi(t, three[0]);
  for (const [query, reason] of [
    [{ $foo: 1 }, 'unknown operator "$foo"'],
    [{ a: { $bar: 1 } }, 'unknown operator "$bar"'],
    [{ $and: 1 }, "$and wants an array"],
    [{ $regex: "(" }, "invalid regular expression: unclosed group"],
    [{ $type: 1 }, "operator $type is not supported"],
    [{ $where: "1" }, "operator $where is not supported"],
  ]) {
    assert.equal(await api.tools.matches(query, [1]), reason);
  }
});
