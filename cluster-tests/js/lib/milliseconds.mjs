// Durations as the settings write them: `400ms`, `8s`.

export function milliseconds(text) {
  const [, amount, unit] = /^(\d+)(ms|s)$/.exec(text);
  return Number(amount) * (unit === "s" ? 1000 : 1);
}
