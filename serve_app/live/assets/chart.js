// Small line and area charts of the last minutes, on one time axis. Gaps in time stay gaps.

import { svg } from "./dom.js";

const HEIGHT = 92;
const MARGIN = { top: 8, right: 4, bottom: 16, left: 52 };
const GAP_S = 12; // a busy machine looks less often than once a second

/** The next round number: 1, 2, 5 times a power of ten. */
function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/** Runs of neighbouring points that have a value. */
function runs(points, valueOf) {
  const found = [];
  let last = null;
  for (const point of points) {
    const value = valueOf(point);
    if (value === null || value === undefined) {
      last = null;
      continue;
    }
    if (last === null || point.at_s - last > GAP_S) found.push([]);
    found.at(-1).push([point.at_s, value]);
    last = point.at_s;
  }
  return found;
}

/**
 * Draw into a holder. `layers` are drawn in their order: { name, kind: "line" | "area", valueOf, baseOf? }, each with
 * the class of its name. `axis` makes the label of a value; `least` is the smallest full scale.
 */
export function drawChart(holder, points, { layers, axis, nowS, spanS, least, label }) {
  const width = Math.max(160, holder.clientWidth);
  const [left, right] = [MARGIN.left, width - MARGIN.right];
  const [top, bottom] = [MARGIN.top, HEIGHT - MARGIN.bottom];
  const shown = points.filter((point) => nowS - point.at_s <= spanS);
  const values = shown.flatMap((point) => layers.map((layer) => layer.valueOf(point) ?? 0));
  const most = roundUp(Math.max(least, ...values));
  const x = (atS) => right - ((nowS - atS) / spanS) * (right - left);
  const y = (value) => bottom - (Math.min(value, most) / most) * (bottom - top);
  const picture = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const share of [0, 0.5, 1]) {
    const at = y(share * most);
    picture.append(svg("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
    const text = svg("text", { x: left - 6, y: at + 3.5, "text-anchor": "end" });
    text.textContent = share ? axis(share * most) : "0";
    picture.append(text);
  }
  for (let minutes = 0; minutes * 60 <= spanS; minutes += 1) {
    const text = svg("text", { x: x(nowS - minutes * 60), y: HEIGHT - 3, "text-anchor": minutes ? "middle" : "end" });
    text.textContent = minutes ? `−${minutes} min` : "now";
    if (minutes * 60 < spanS) picture.append(text);
  }
  for (const { name, kind, valueOf, baseOf } of layers) {
    for (const run of runs(shown, valueOf)) {
      const line = run.map(([atS, value]) => `${x(atS).toFixed(1)},${y(value).toFixed(1)}`);
      if (kind === "line") {
        const made = run.length > 1 ? svg("polyline", { points: line.join(" ") }) : svg("circle", { cx: x(run[0][0]), cy: y(run[0][1]), r: 1.5 });
        made.setAttribute("class", `${kind} ${name}`);
        picture.append(made);
        continue;
      }
      const bases = runs(shown.filter((point) => point.at_s >= run[0][0] && point.at_s <= run.at(-1)[0]), baseOf ?? (() => 0)).flat();
      const back = bases.reverse().map(([atS, value]) => `${x(atS).toFixed(1)},${y(value).toFixed(1)}`);
      picture.append(svg("polygon", { class: `${kind} ${name}`, points: [...line, ...back].join(" ") }));
    }
  }
  holder.replaceChildren(picture);
}
