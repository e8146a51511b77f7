// The running cluster that the suites talk to, from the list that its runner wrote.

import { readFileSync } from "node:fs";
import { isAbsolute, join } from "node:path";

const listed = process.env.FLOTILLA_NODES;
if (!listed) {
  throw new Error("FLOTILLA_NODES must name the nodes.json of a running cluster; `make client-test` sets it");
}
// npm runs scripts in the package's folder; a relative path was meant from where npm was called.
const path = isAbsolute(listed) ? listed : join(process.env.INIT_CWD ?? process.cwd(), listed);

/** Every node of the cluster: `{id, url, admin, grpc}`; with `isBalancer` if `url` leads to any of them. */
export const nodes = JSON.parse(readFileSync(path, "utf8"));

/** The node with this index; wraps round, so that the suites also run on a smaller cluster. */
export function node(index) {
  return nodes[index % nodes.length];
}

/** Three nodes, different ones where the cluster has that many. */
export const three = [node(0), node(1), node(2)];
