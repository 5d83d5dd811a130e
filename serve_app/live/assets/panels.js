// Everything but cameras and pictures: numbers at a glance, classes, lanes, memory, ladder, verdicts, replicas, routers.

import { $, el, say } from "./dom.js";
import { NONE, count, duration, gib, latency, latencyParts, percent, plural, rate } from "./text.js";

const LEVELS = ["normal", "high", "critical", "shed"];
const NOT_GOOD = ["rejected", "expired", "failed"];

/** A table from headings ("name" left, "#name" right) and rows of cells: texts, or elements. */
function table(headings, rows) {
  const heads = headings.map((heading) => el(heading.startsWith("#") ? "th.num" : "th", { scope: "col" }, heading.replace("#", "")));
  const made = el("table", null, el("thead", null, el("tr", null, ...heads)), el("tbody"));
  made.tBodies[0].append(...rows.map((row) => el("tr", row.attributes, ...row.cells.map((cell, at) =>
    el(headings[at].startsWith("#") ? "td.num" : "td", null, cell ?? NONE)))));
  return made;
}

export function showKpis(shown) {
  const rates = shown.rates.outcomes_hz;
  const ended = Object.values(rates).reduce((sum, hz) => sum + hz, 0);
  const lost = NOT_GOOD.reduce((sum, name) => sum + (rates[name] ?? 0), 0);
  const waiting = shown.pools.flatMap((pool) => Object.values(pool.waiting)).reduce((sum, each) => sum + each, 0);
  const work = shown.pools.reduce((sum, pool) => sum + pool.waiting_device_s, 0);
  const ready = shown.pools.reduce((sum, pool) => sum + pool.num_ready, 0);
  const wanted = shown.pools.reduce((sum, pool) => sum + Math.max(pool.num_wanted, pool.num_ready), 0);
  const p99 = (name) => {
    const found = shown.classes.find((each) => each.class === name);
    const [value, unit] = latencyParts(found.recent.p99_s);
    const isLate = found.recent.p99_s !== null && found.recent.p99_s > found.slo_s;
    return { name: `${name} p99`, value, unit, note: `of ${latency(found.slo_s)} allowed`, state: found.recent.p99_s === null ? "none" : isLate ? "bad" : "good" };
  };
  const share = ended ? lost / ended : null;
  const tiles = [
    { name: "frames", value: rate(shown.frames_hz), unit: "/s", note: plural(shown.cameras.length, "camera") },
    p99("critical"),
    p99("normal"),
    { name: "not served", value: share === null ? NONE : share > 0 && share < 0.001 ? "<0.1" : (share * 100).toFixed(share === 0 || share >= 0.0995 ? 0 : 1), unit: share === null ? "" : "%", note: "rejected, expired, failed", state: share === null ? "none" : share >= 0.05 ? "bad" : share > 0 ? "warn" : "good" },
    { name: "waiting", value: count(waiting), unit: waiting === 1 ? "frame" : "frames", note: `${latency(work)} of work, ${count(shown.num_in_flight)} in flight` },
    { name: "replicas", value: `${ready}/${wanted}`, unit: "", note: plural(shown.routers.length, "router"), state: ready === 0 ? "bad" : ready < wanted ? "warn" : "good" },
  ];
  $("kpis").replaceChildren(...tiles.map(({ name, value, unit, note, state }) => el("div.kpi", { "data-state": state, "data-kpi": name },
    el("p.name", null, name), el("p.value", null, value, unit ? el("span.unit", null, ` ${unit}`) : null), el("p.note", null, note))));
}

export function showClasses(shown) {
  const rows = shown.classes.map(({ class: name, slo_s, recent, ever }) => ({
    attributes: { "data-class": name, title: `since the start: ${count(ever.num_frames)} frames, p50 ${latency(ever.p50_s)}, p99 ${latency(ever.p99_s)}` },
    cells: [el("span.key", { "data-class": name }, name), count(recent.num_frames), latency(recent.p50_s), el("b", { "data-late": recent.p99_s > slo_s }, latency(recent.p99_s)), latency(recent.queue_p50_s), latency(recent.queue_p99_s)],
  }));
  $("classes").replaceChildren(table(["class", "#frames", "#p50", "#p99", "#wait p50", "#wait p99"], rows));
  const over = shown.classes[0].over_s;
  say($("latency-unit"), over === null ? "finished frames since the start" : `finished frames, last ${over.toFixed(0)} s`);
}

export function showCounts(shown) {
  const list = (title, counts, hz, first) => {
    const names = Object.keys(counts).filter((name) => counts[name]);
    const rows = (names.length ? names : [first]).map((name) => ({ attributes: { "data-name": name }, cells: [name, count(counts[name] ?? 0), rate(hz[name] ?? 0)] }));
    return table([title, "#frames", "#/s"], rows);
  };
  const { verdicts, outcomes, rates } = shown;
  $("counts").replaceChildren(list("verdict", verdicts, rates.verdicts_hz, "admit"), list("outcome", outcomes, rates.outcomes_hz, "finished"));
  say($("rate-unit"), rates.since_start ? "/s: since the start" : `/s: last ${rates.over_s.toFixed(0)} s`);
}

function lanes(pool, most) {
  return el("div.lanes", null, ...Object.entries(pool.waiting).map(([name, waiting]) => {
    const bar = el("i", { "data-class": name });
    bar.style.width = `${waiting ? Math.max(2, (100 * waiting) / most) : 0}%`;
    return el("div.lane", { "data-lane": name }, el("span", null, name), el("span.track", null, bar), el("b", null, count(waiting)));
  }));
}

/** The fullest device, with the marks from which on frames are degraded. */
function memory(pool, marks) {
  const shares = pool.replicas.filter((each) => each.memory_used_bytes !== null && each.memory_total_bytes)
    .map((each) => each.memory_used_bytes / each.memory_total_bytes);
  const share = shares.length ? Math.max(...shares) : null;
  const bar = el("i");
  bar.style.width = `${100 * Math.min(1, share ?? 0)}%`;
  const ticks = Object.entries(marks).map(([level, at]) => {
    const tick = el("u", { title: `${level} from ${percent(at)}` });
    tick.style.left = `${100 * at}%`;
    return tick;
  });
  return el("div.fact", { "data-level": pool.memory_level }, el("span", null, "memory"), el("span.track.meter", null, bar, ...ticks),
    el("b", null, `${percent(share)} ${LEVELS.includes(pool.memory_level) ? pool.memory_level : ""}`));
}

function ladder(pool, rungs) {
  const steps = ["own size", ...rungs].map((text, at) => el("li", { "data-now": at === pool.rung ? "yes" : at < pool.rung ? "passed" : null, title: at ? `rung ${at}` : "rung 0: each camera's own model at its own size" }, text));
  return el("div.fact.ladder", null, el("span", null, "ladder"), el("ol", null, ...steps));
}

export function showPools(shown) {
  const most = Math.max(10, ...shown.pools.flatMap((pool) => Object.values(pool.waiting)));
  $("pools").replaceChildren(...shown.pools.map((pool) => {
    const wanted = Math.max(pool.num_wanted, pool.num_ready);
    const state = pool.num_ready === 0 ? "bad" : pool.num_ready < wanted ? "warn" : "good";
    const troubles = [pool.trouble, pool.num_ready ? "" : "no replica is ready", ...Object.entries(pool.unhealthy).map(([name, why]) => `${name} gets no frames: ${why}`), ...pool.replicas.flatMap((each) => each.notes.map((note) => `${each.replica}: ${note}`))].filter(Boolean);
    return el("section.card.pool", { "data-pool": pool.pool },
      el("header", null, el("h2", null, "Pool ", el("em", null, pool.pool)), el("p", null, el("span.chip.ready", { "data-state": state }, `${pool.num_ready}/${wanted} ready`))),
      lanes(pool, most), memory(pool, shown.memory_marks), shown.ladder.length ? ladder(pool, shown.ladder) : null,
      el("p.minor", null, `${latency(pool.waiting_device_s)} of work waits · ${plural(pool.num_running, "batch", "batches")} running · ${plural(pool.num_credits, "free credit")}`),
      ...troubles.map((text) => el("p.trouble", null, text)));
  }));
}

export function showReplicas(shown) {
  const hosts = new Map(shown.nodes.map((node) => [node.node, node.host]));
  const replicas = shown.pools.flatMap((pool) => pool.replicas);
  const rows = replicas.map((each) => ({
    attributes: { "data-state": each.notes.length ? "warn" : null, title: each.notes.join("; ") },
    cells: [el("span.two", null, each.replica, el("small", null, `up ${duration(each.up_s)}, ${hosts.get(each.node) ?? each.node}, ${(each.device ?? "").replace("NVIDIA ", "")}`)),
      `${gib(each.memory_used_bytes)}/${gib(each.memory_total_bytes)}`, each.temperature_c === null ? NONE : each.temperature_c.toFixed(0), percent(each.utilisation), count(each.num_batches)],
  }));
  $("replicas").replaceChildren(replicas.length ? table(["replica", "#GiB", "#°C", "#use", "#batches"], rows) : el("p.empty", null, "No replica is ready."));
}

export function showRouters(shown) {
  const hosts = new Map(shown.nodes.map((node) => [node.node, node.host]));
  const rows = shown.routers.map((each) => ({ cells: [el("span.two", null, each.router, el("small", null, hosts.get(each.node) ?? each.node)), count(each.num_ended), count(each.num_in_flight), duration(each.uptime_s)] }));
  $("routers").replaceChildren(table(["router", "#frames", "#in flight", "#up"], rows));
}

export function showFacts(shown) {
  const alive = shown.nodes.filter((node) => node.state === "alive").length;
  const facts = [`up ${duration(shown.uptime_s)}`, shown.nodes.length ? plural(alive, "machine") : "", plural(shown.num_viewers, "viewer")];
  say($("facts"), facts.filter(Boolean).join(" · "));
}
