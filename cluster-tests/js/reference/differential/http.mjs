// Requests without a session: handshakes, and everything that is refused instead.

const UNKNOWN = "sid=AAAAAAAAAAAAAAAAAAAA";
const ORIGIN = { origin: "http://elsewhere.example" };

/** One request, and its answer. */
const ask = (options) => (node, tape) => tape.ask(node, options);
const askWebSocket = (query, headers) => (node, tape) => tape.askWebSocket(node, query, headers);

export const scripts = {
  ...named("handshake", {
    polling: ask({ query: "EIO=4&transport=polling" }),
    "with other parameters": ask({ query: "t=abc&x=%20&transport=polling&b64=0&EIO=4" }),
    "without a slash": ask({ path: "/socket.io", query: "EIO=4&transport=polling" }),
    "with a longer path": ask({ path: "/socket.io/more", query: "EIO=4&transport=polling" }),
    "from Internet Explorer": ask({ query: "EIO=4&transport=polling", headers: { "user-agent": "Mozilla/5.0; MSIE 10.0; Trident/6.0" } }),
    "from another origin": ask({ query: "EIO=4&transport=polling", headers: ORIGIN }),
    "accepting gzip": ask({ query: "EIO=4&transport=polling", headers: { "accept-encoding": "gzip" } }),
    "with a repeated parameter": ask({ query: "EIO=4&EIO=4&transport=polling" }),
    "with a repeated transport": ask({ query: "EIO=4&transport=polling&transport=websocket" }),
    "with an empty sid": ask({ query: "EIO=4&transport=polling&sid=" }),
  }),
  ...named("transport", {
    missing: ask({ query: "EIO=4" }),
    empty: ask({ query: "EIO=4&transport=" }),
    unknown: ask({ query: "EIO=4&transport=abc" }),
    constructor: ask({ query: "EIO=4&transport=constructor" }),
    prototype: ask({ query: "EIO=4&transport=__proto__" }),
    "in capitals": ask({ query: "EIO=4&transport=POLLING" }),
    webtransport: ask({ query: "EIO=4&transport=webtransport" }),
    "websocket without an upgrade": ask({ query: "EIO=4&transport=websocket" }),
    "no query at all": ask({}),
  }),
  ...named("unknown session", {
    GET: ask({ query: `EIO=4&transport=polling&${UNKNOWN}` }),
    POST: ask({ method: "POST", query: `EIO=4&transport=polling&${UNKNOWN}`, body: "3" }),
    PUT: ask({ method: "PUT", query: `EIO=4&transport=polling&${UNKNOWN}` }),
    "for websocket": ask({ query: `EIO=4&transport=websocket&${UNKNOWN}` }),
    "not like one of ours": ask({ query: "EIO=4&transport=polling&sid=x" }),
    "from another origin": ask({ query: `EIO=4&transport=polling&${UNKNOWN}`, headers: ORIGIN }),
    "and an unknown transport": ask({ query: `EIO=4&transport=abc&${UNKNOWN}` }),
    "and no version": ask({ query: `transport=polling&${UNKNOWN}` }),
  }),
  ...named("handshake by", {
    POST: ask({ method: "POST", query: "EIO=4&transport=polling" }),
    PUT: ask({ method: "PUT", query: "EIO=4&transport=polling" }),
    DELETE: ask({ method: "DELETE", query: "EIO=4&transport=polling" }),
    PATCH: ask({ method: "PATCH", query: "EIO=4&transport=polling" }),
    HEAD: ask({ method: "HEAD", query: "EIO=4&transport=polling" }),
    OPTIONS: ask({ method: "OPTIONS", query: "EIO=4&transport=polling" }),
    "OPTIONS from another origin": ask({
      method: "OPTIONS",
      query: "EIO=4&transport=polling",
      headers: { ...ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-token" },
    }),
  }),
  ...named("version", {
    missing: ask({ query: "transport=polling" }),
    5: ask({ query: "EIO=5&transport=polling" }),
    empty: ask({ query: "EIO=&transport=polling" }),
    "04": ask({ query: "EIO=04&transport=polling" }),
  }),
  ...named("upgrade", {
    "without a transport": askWebSocket("EIO=4"),
    "to an unknown transport": askWebSocket("EIO=4&transport=abc"),
    "of an unknown session": askWebSocket(`EIO=4&transport=websocket&${UNKNOWN}`),
    "of an unknown session from another origin": askWebSocket(`EIO=4&transport=websocket&${UNKNOWN}`, ORIGIN),
    "of another version of WebSocket": askWebSocket("EIO=4&transport=websocket", { "sec-websocket-version": "7" }),
    "without a key": askWebSocket("EIO=4&transport=websocket", { "sec-websocket-key": "" }),
    "with a bad key": askWebSocket("EIO=4&transport=websocket", { "sec-websocket-key": "x" }),
    "to another protocol": askWebSocket("EIO=4&transport=websocket", { upgrade: "h2c" }),
  }),
  ...named("client bundle", {
    whole: ask({ path: "/socket.io/socket.io.js" }),
    minified: ask({ path: "/socket.io/socket.io.min.js" }),
    "as a module": ask({ path: "/socket.io/socket.io.esm.min.js" }),
    "with msgpack": ask({ path: "/socket.io/socket.io.msgpack.min.js" }),
    "its map": ask({ path: "/socket.io/socket.io.min.js.map" }),
    "with a query": ask({ path: "/socket.io/socket.io.min.js", query: "v=1" }),
    "known already": ask({ path: "/socket.io/socket.io.js", headers: { "if-none-match": '"4.8.4"' } }),
    "known already, weakly": ask({ path: "/socket.io/socket.io.js", headers: { "if-none-match": 'W/"4.8.4"' } }),
    "not there": ask({ path: "/socket.io/socket.io.other.js" }),
    "a file beside it": ask({ path: "/socket.io/package.json" }),
    gzip: ask({ path: "/socket.io/socket.io.min.js", headers: { "accept-encoding": "gzip" } }),
    "by HEAD": ask({ method: "HEAD", path: "/socket.io/socket.io.min.js" }),
  }),
};

export function named(group, scripts) {
  return Object.fromEntries(Object.entries(scripts).map(([name, script]) => [`${group}: ${name}`, script]));
}
