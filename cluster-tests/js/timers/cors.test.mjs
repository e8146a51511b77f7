// Cross-origin requests, with the two origins that `settings.sh` allows.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { request } from "../lib/http.mjs";
import { node } from "../lib/nodes.mjs";
import { Polling } from "../lib/raw.mjs";

const ALLOWED = ["http://app.example", "http://other.example"];
const query = "EIO=4&transport=polling";
const first = node(0);

describe("cors", () => {
  test("an allowed origin is named in every answer, and caches are told that it varies", async () => {
    for (const origin of ALLOWED) {
      const handshake = await request(first, { query, headers: { origin } });
      const session = new Polling(first, JSON.parse(handshake.text.slice(1)));
      const posted = await session.post("3", { headers: { origin } });
      const error = await request(first, { query: "EIO=4&transport=abc", headers: { origin } });
      assert.deepEqual([handshake.status, posted.status, error.status], [200, 200, 400]);
      for (const response of [handshake, posted, error]) {
        assert.equal(response.headers["access-control-allow-origin"], origin);
        assert.match(response.headers.vary, /origin/i);
      }
    }
  });

  test("another origin is not named", async () => {
    for (const origin of ["http://evil.example", "http://app.example.evil.example", "https://app.example", "null"]) {
      const response = await request(first, { query, headers: { origin } });
      assert.equal(response.headers["access-control-allow-origin"], undefined, origin);
    }
  });

  test("a preflight is answered 204 with what is allowed", async () => {
    const response = await request(first, {
      method: "OPTIONS",
      query,
      headers: {
        origin: ALLOWED[0],
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-token",
      },
    });
    assert.deepEqual([response.status, response.text], [204, ""]);
    assert.equal(response.headers["access-control-allow-origin"], ALLOWED[0]);
    assert.match(response.headers["access-control-allow-methods"], /POST/);
    assert.match(response.headers["access-control-allow-headers"], /x-token/i);
  });

  test("a preflight from another origin allows nothing", async () => {
    const response = await request(first, {
      method: "OPTIONS",
      query,
      headers: { origin: "http://evil.example", "access-control-request-method": "POST" },
    });
    assert.equal(response.headers["access-control-allow-origin"], undefined);
  });
});
