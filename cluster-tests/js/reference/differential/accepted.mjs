// Where Flotilla answers otherwise than the official server, and why it may.

const AS_IT_CAME = "what a client sends is passed on as it came; the official server parses and writes it anew, with the same value";
const BASE64 = "what is no base64 is refused; Node's decoder passes over what it does not know";
const UTF8 = "what is no UTF-8 is refused, as in a WebSocket frame; Node's decoder puts U+FFFD for it";
const EXACT_IDS = "an id that 64 bits do not hold is refused; the official server answers another id than the client's";
const WHOLE_PLACEHOLDERS = "a placeholder that names no attachment is refused whatever its number; the official server puts null for a fraction";
const WS_WORDS = "a bad WebSocket handshake is refused with one text; npm's ws has one for each header";

const CLOSES = "a client that closes is gone at once; the official server lets it run into the ping timeout";
const WHOLE = "a body that is no payload is refused whole; the official server takes of it what it can read";

const VARIES = "an answer that depends on Accept-Encoding says so to caches (RFC 9110, 12.5.5)";

const ACCEPTED = {
  "upgrade: of another version of WebSocket": WS_WORDS,
  "upgrade: without a key": WS_WORDS,
  "upgrade: with a bad key": WS_WORDS,
  "upgrade: to another protocol": WS_WORDS,
  "engine packet: close": CLOSES,
  "frame: closing with 1001 and a reason": "a close frame is answered with its code, without its words",
  "payload: of base64 for URLs": BASE64,
  "payload: of base64 with a character too many": BASE64,
  "body: that is not UTF-8": UTF8,
  "EIO3 frame: of a close packet": CLOSES,
  "EIO3 frame: that is binary and empty": "a binary frame without a type is no packet; the official server passes over it",
  "EIO3 payload: in bad binary": WHOLE,
  "EIO3 payload: whose length is too short": WHOLE,
  ...all("client bundle", VARIES, ["whole", "minified", "as a module", "with msgpack", "its map", "with a query", "gzip", "by HEAD"]),
  ...inBoth({
    "an event with an id beyond all numbers": EXACT_IDS,
    "an event with duplicate keys": AS_IT_CAME,
    "an event with escapes": AS_IT_CAME,
    "an event with numbers of all kinds": AS_IT_CAME,
    "a binary event with one placeholder twice": AS_IT_CAME,
    "a binary event with an attachment that nothing names": AS_IT_CAME,
    "a placeholder that is a fraction": WHOLE_PLACEHOLDERS,
    "a placeholder that is none": AS_IT_CAME,
    "a placeholder with more in it": AS_IT_CAME,
  }),
};

/** The reason for which this script's answers may differ, if there is one. */
export function accepted(name) {
  return ACCEPTED[name];
}

function all(group, reason, names) {
  return Object.fromEntries(names.map((name) => [`${group}: ${name}`, reason]));
}

function inBoth(reasons) {
  const entries = Object.entries(reasons);
  return Object.fromEntries(["by websocket", "by polling"].flatMap((way) => entries.map(([name, reason]) => [`${way}: ${name}`, reason])));
}
