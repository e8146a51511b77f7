// What the nodes count, of their admin ports.

/** Relayed requests of all nodes together, by kind. */
export async function relayed(nodes) {
  const totals = { poll: 0, post: 0, upgrade: 0 };
  for (const node of nodes) {
    const text = await (await fetch(`${node.admin}/metrics`)).text();
    const counts = text.matchAll(/^flotilla_relayed_requests_total\{kind="(\w+)"\} (\d+)$/gm);
    for (const [, kind, count] of counts) totals[kind] += Number(count);
  }
  return totals;
}
