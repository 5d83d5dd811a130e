// Where frames go: size → canvas → bucket, as ribbons as wide as there are frames.

import { svg } from "./dom.js";
import { count, rate } from "./text.js";

const MAX_SIZES = 12;
const SLOT = 24;
const BAR = 9;
const COLOURS = 8;

/** Ways with their value: frames a second, or, where nothing moves, frames so far. */
function valued(flows) {
  const moves = flows.some((flow) => flow.hz > 0);
  return { moves, ways: flows.map((flow) => ({ ...flow, value: moves ? flow.hz : flow.num_frames })).filter((flow) => flow.value > 0) };
}

/** The rarest sizes together in one. */
function few(ways) {
  const bySize = new Map();
  for (const way of ways) bySize.set(way.size, (bySize.get(way.size) ?? 0) + way.value);
  if (bySize.size <= MAX_SIZES) return ways;
  const kept = new Set([...bySize].sort((a, b) => b[1] - a[1]).slice(0, MAX_SIZES - 1).map(([size]) => size));
  const other = `${bySize.size - kept.size} other sizes`;
  return ways.map((way) => (kept.has(way.size) ? way : { ...way, size: other, size_px: 0 }));
}

/** Nodes of one column, largest pictures first, with the ribbons that touch them. */
function column(ways, nameOf, orderOf) {
  const nodes = new Map();
  for (const way of ways) {
    const name = nameOf(way);
    if (!nodes.has(name)) nodes.set(name, { name, value: 0, order: orderOf(way), left: 0, right: 0 });
    nodes.get(name).value += way.value;
  }
  return [...nodes.values()].sort((a, b) => b.order - a.order || b.value - a.value || a.name.localeCompare(b.name));
}

const canvasOf = (way) => (way.is_tiled ? `${way.canvas} tiles` : way.canvas);

/** Draw into a holder; gives the text that says what a ribbon's width means. */
export function drawFlow(holder, flows, buckets) {
  const { moves, ways: all } = valued(flows);
  const ways = few(all);
  if (!ways.length) {
    holder.replaceChildren(Object.assign(document.createElement("p"), { className: "empty", textContent: "No frame has finished yet." }));
    return "";
  }
  const bucketOrder = new Map(buckets.map((bucket, index) => [bucket.bucket, -index]));
  const columns = [
    column(ways, (way) => way.size, (way) => way.size_px),
    column(ways, canvasOf, (way) => way.canvas_px),
    column(ways, (way) => way.bucket, (way) => bucketOrder.get(way.bucket) ?? -99),
  ];
  const width = Math.max(300, holder.clientWidth);
  const total = ways.reduce((sum, way) => sum + way.value, 0);
  const most = Math.max(...columns.map((nodes) => nodes.length));
  const height = Math.max(132, most * (SLOT + 10) + 24);
  const scale = Math.min(...columns.map((nodes) => (height - 18 - (nodes.length - 1) * 10) / total)) * 0.86;
  const xs = [0, width * (width >= 520 ? 0.46 : 0.4), width - BAR];
  for (const [index, nodes] of columns.entries()) {
    const heights = nodes.map((node) => Math.max(2, node.value * scale));
    const slots = heights.map((each) => Math.max(SLOT, each + 8));
    const free = height - 16 - slots.reduce((sum, slot) => sum + slot, 0);
    let y = 16 + Math.max(0, free) / (nodes.length + 1);
    nodes.forEach((node, at) => {
      node.x = xs[index];
      node.height = heights[at];
      node.y = y + (slots[at] - heights[at]) / 2;
      y += slots[at] + Math.max(0, free) / (nodes.length + 1);
    });
  }
  const bottom = Math.max(...columns.flat().map((node) => node.y + node.height)) + 10;
  const find = (index, name) => columns[index].find((node) => node.name === name);
  const colourOf = (bucket) => `c${(-(bucketOrder.get(bucket) ?? 0)) % COLOURS}`;
  const picture = svg("svg", { width, height: Math.max(height, bottom), role: "img", "aria-label": "Frames by size, canvas and bucket" });
  const told = (value) => (moves ? `${rate(value)}/s` : count(value));
  for (const step of [0, 1]) {
    const ribbons = new Map();
    for (const way of ways) {
      const [from, to] = step ? [canvasOf(way), way.bucket] : [way.size, canvasOf(way)];
      const key = JSON.stringify([from, to, way.bucket]);
      if (!ribbons.has(key)) ribbons.set(key, { from: find(step, from), to: find(step + 1, to), bucket: way.bucket, value: 0 });
      ribbons.get(key).value += way.value;
    }
    for (const { from, to, bucket, value } of [...ribbons.values()].sort((a, b) => a.from.y - b.from.y || a.to.y - b.to.y)) {
      const thick = Math.max(1.5, value * scale);
      const [x0, x1] = [from.x + BAR, to.x];
      const y0 = from.y + from.right + thick / 2;
      const y1 = to.y + to.left + thick / 2;
      from.right += thick;
      to.left += thick;
      const middle = (x0 + x1) / 2;
      const path = svg("path", { class: `ribbon ${colourOf(bucket)}`, d: `M${x0},${y0.toFixed(1)} C${middle},${y0.toFixed(1)} ${middle},${y1.toFixed(1)} ${x1},${y1.toFixed(1)}`, "stroke-width": thick });
      const title = svg("title");
      title.textContent = `${from.name} → ${to.name}: ${told(value)}`;
      path.append(title);
      picture.append(path);
    }
  }
  const headings = ["size", "canvas", "bucket"];
  columns.forEach((nodes, index) => {
    const atEnd = index === 2;
    const at = atEnd ? width : xs[index];
    const heading = svg("text", { class: "heading", x: at, y: 10, "text-anchor": atEnd ? "end" : "start" });
    heading.textContent = headings[index];
    picture.append(heading);
    for (const node of nodes) {
      const colour = atEnd ? colourOf(node.name) : "plain";
      picture.append(svg("rect", { class: `bar ${colour}`, x: node.x, y: node.y, width: BAR, height: node.height, rx: 2 }));
      const text = svg("text", { class: "label", x: atEnd ? node.x - 7 : node.x + BAR + 7, y: node.y + node.height / 2 + 4, "text-anchor": atEnd ? "end" : "start" });
      const name = svg("tspan");
      name.textContent = node.name;
      const value = svg("tspan", { class: "value", dx: width >= 520 ? 7 : 5 });
      value.textContent = told(node.value);
      text.append(name);
      if (width >= 520 || index !== 1) text.append(value); // a phone has no room for all
      picture.append(text);
    }
  });
  holder.replaceChildren(picture);
  return moves ? "finished frames a second, last 10 s" : "finished frames so far";
}
