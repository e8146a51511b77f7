// A TCP line to a node that can be cut, and that knows when its client has gone over to WebSocket.

import { once } from "node:events";
import { connect, createServer } from "node:net";

/** What a client sends on a WebSocket before its upgrade: the probe, as a masked frame. */
const PROBE_BYTES = 12;

/** Opens the line; the test closes it at its end. It has the node's id, and a url of its own. */
export async function openLine(t, node) {
  const lines = new Set();
  const server = createServer((client) => {
    const line = { client, upstream: connect(Number(new URL(node.url).port), "127.0.0.1"), isUpgraded: false };
    lines.add(line);
    line.upstream.setNoDelay(true);
    client.pipe(line.upstream).pipe(client);
    watchUpgrade(line);
    for (const end of [client, line.upstream]) {
      end.on("error", () => {});
      end.on("close", () => {
        lines.delete(line);
        client.destroy();
        line.upstream.destroy();
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => lines.forEach(({ client }) => client.destroy());
  t.after(() => {
    cut();
    server.close();
  });
  return {
    ...node,
    url: `http://127.0.0.1:${server.address().port}`,
    isUpgraded: () => [...lines].some((line) => line.isUpgraded),
    cut,
  };
}

function watchUpgrade(line) {
  let sent = "";
  line.client.on("data", (data) => {
    if (line.isUpgraded) return;
    sent += data.toString("latin1");
    const head = sent.indexOf("\r\n\r\n");
    const isWebSocket = /^upgrade: websocket\r?$/im.test(sent.slice(0, head + 2));
    line.isUpgraded = head >= 0 && isWebSocket && sent.length - head - 4 > PROBE_BYTES;
  });
}
