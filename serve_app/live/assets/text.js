// Numbers as people read them. Seconds come in, milliseconds are only ever text.

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => (value === null || value === undefined ? NONE : whole.format(value));

/** A number a second, or the like: one digit behind the point where that says something. */
export function rate(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0 || value >= 99.95) return whole.format(value);
  if (value >= 0.995) return value.toFixed(1);
  return value >= 0.005 ? value.toFixed(2) : "<0.01";
}

/** A latency: [number, unit]. */
export function latencyParts(seconds) {
  if (seconds === null || seconds === undefined) return [NONE, ""];
  if (seconds >= 99.5) return [whole.format(seconds), "s"];
  if (seconds >= 9.995) return [seconds.toFixed(1), "s"];
  if (seconds >= 0.9995) return [seconds.toFixed(2), "s"];
  const ms = seconds * 1000;
  return [ms >= 9.95 ? ms.toFixed(0) : ms.toFixed(1), "ms"];
}

export const latency = (seconds) => latencyParts(seconds).join(" ").trim();

/** At most six characters: "7 s", "12 min", "3.5 h", "41 d". */
export function duration(seconds) {
  if (seconds < 100) return `${seconds.toFixed(0)} s`;
  if (seconds < 6000) return `${(seconds / 60).toFixed(0)} min`;
  return seconds < 360000 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(0)} d`;
}

export const percent = (share) => (share === null || share === undefined ? NONE : `${(share * 100).toFixed(0)} %`);

export function gib(bytes) {
  return bytes === null || bytes === undefined ? NONE : (bytes / 2 ** 30).toFixed(1);
}

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many ?? `${one}s`}`;
