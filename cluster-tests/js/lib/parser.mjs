// The parser that the nodes were told to use, as an option of clients and of the official server.

import msgpack from "socket.io-msgpack-parser";

export const isMsgpack = process.env.FLOTILLA_SOCKETIO__PARSER === "msgpack";

/** To be spread into their options. */
export const parser = isMsgpack ? { parser: msgpack } : {};
