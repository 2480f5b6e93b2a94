/** Numbers, times and ids as people read them. */
const GRAIN_PER_ASY = 1_000_000_000n;
const DECIMALS = 9;

/** An amount of grain in ASY, exact, without needless zeros. */
export function amount(grain: string | bigint): string {
  const value = BigInt(grain);
  const whole = (value / GRAIN_PER_ASY).toLocaleString("en");
  const rest = (value % GRAIN_PER_ASY).toString().padStart(DECIMALS, "0").replace(/0+$/, "");
  return `${whole}${rest ? `.${rest}` : ""} ASY`;
}

export function count(value: number | string | bigint): string {
  return BigInt(value).toLocaleString("en");
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
  return `${Math.floor(ms / 3_600_000)} h ${Math.round((ms % 3_600_000) / 60_000)} min`;
}

/** How long ago, in whole units; null for the future and for what is more than a day old. */
export function since(ms: number): string | null {
  if (ms < 0 || ms >= 86_400_000) return null;
  if (ms < 1000) return "just now";
  if (ms < 60_000) return `${Math.floor(ms / 1000)} s ago`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ago`;
  return `${Math.floor(ms / 3_600_000)} h ago`;
}

export function clockTime(ms: number): string {
  return new Date(ms).toLocaleTimeString("en-GB");
}

export function dateTime(ms: number): string {
  return `${new Date(ms).toISOString().replace("T", " ").slice(0, 19)} UTC`;
}

export function shortId(text: string): string {
  if (text.length <= 20) return text;
  return `${text.slice(0, text.startsWith("assay1") ? 10 : 8)}…${text.slice(-4)}`;
}

/** Scores are in 2^-20 nats. */
export function nats(value: number): string {
  const scaled = value / 2 ** 20;
  if (scaled === 0) return "0";
  return scaled < 0.001 ? scaled.toExponential(1) : scaled.toFixed(4);
}

/** What an honest output with this doubt may have of a sum at most, in 2^-20. */
export function allowed(bound: { base: number; rate: number }, doubtSum: string): number {
  return bound.base + bound.rate * (Number(doubtSum) / 2 ** 20);
}

/** The value that a share of all is not above; null of nothing. */
export function quantile(values: readonly number[], share: number): number | null {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
}

export function words(name: string): string {
  return name.toLowerCase().replaceAll("_", " ");
}

/** A part of a whole in percent; numbers that may be beyond 2^53. */
export function share(part: bigint, whole: bigint): string {
  return whole === 0n ? "–" : `${(Number((part * 1000n) / whole) / 10).toFixed(1)}%`;
}
