// Flotilla's relay application on the official server; with REDIS_URL, on its Redis adapter. The argument is the port.

import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const { REDIS_URL: url } = process.env;
const http = createServer();
const options = {};
if (url !== undefined) {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  options.adapter = createAdapter(publisher, subscriber);
}
const io = new Server(http, options);

io.on("connection", (socket) => {
  socket.on("echo", (...args) => args.pop()(...args));
  socket.on("join", (room, ack) => {
    socket.join(room);
    ack();
  });
  socket.on("leave", (room, ack) => {
    socket.leave(room);
    ack();
  });
  socket.on("bcast", (data) => io.emit("msg", data));
  socket.on("room", (room, data) => io.to(room).emit("msg", data));
  socket.on("dm", (id, data) => io.to(id).emit("msg", data));
});

http.listen(Number(process.argv[2]), "127.0.0.1");
