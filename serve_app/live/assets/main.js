// The page: what comes over the stream goes to the panels; what it is about, where it is from, and since when.

import { Cameras } from "./cameras.js";
import { drawChart } from "./chart.js";
import { $, mark, say } from "./dom.js";
import { drawFlow } from "./flow.js";
import { showClasses, showCounts, showFacts, showKpis, showPools, showReplicas, showRouters } from "./panels.js";
import { Stream } from "./stream.js";
import { count, duration, latency, rate } from "./text.js";

const SPAN_S = 180;
const HIDDEN_MS = 30000;
const CLASSES = ["deferred", "normal", "critical"];
const THEMES = ["auto", "light", "dark"];

const page = { shown: null, points: [], epoch: null, offsetS: 0, at: 0, away: "", state: "connecting", why: "" };

const remembered = (store, name, value) => {
  try {
    if (value === undefined) return store.getItem(name);
    store.setItem(name, value);
  } catch {
    // A browser that keeps nothing shows the page all the same.
  }
  return null;
};

const headers = () => {
  const key = page.key ?? remembered(sessionStorage, "framelane-key");
  return key ? { Authorization: `Bearer ${key}` } : {};
};

const cameras = new Cameras($("cameras"), headers);

const stream = new Stream({
  url: "live/events",
  headers,
  onState(state, why) {
    page.state = state;
    page.why = why;
    if (state === "key") askForKey(why);
    showState();
  },
  onEvent(kind, content) {
    if (kind === "hello") hello(content);
    else if (kind === "away") page.away = content.why;
    else if (kind === "numbers") numbers(content);
    showState();
  },
});

/** Points of another server's clock are moved to this one's, so that the charts go on over its restart. */
function hello({ epoch, now_s: nowS, history }) {
  if (page.epoch !== null && page.epoch !== epoch) {
    const passedS = (performance.now() - page.at) / 1000;
    const shift = nowS - (page.nowS + passedS);
    page.points = page.points.map((point) => ({ ...point, at_s: point.at_s + shift, number: -1 }));
  }
  page.epoch = epoch;
  page.nowS = nowS;
  page.at = performance.now();
  for (const point of history) addPoint(point);
}

function addPoint(point) {
  if (point.number > 0 && page.points.some((each) => each.number === point.number)) return;
  page.points.push(point);
  page.points = page.points.filter((each) => point.at_s - each.at_s <= SPAN_S + 5);
}

function numbers(content) {
  page.away = "";
  page.shown = content;
  page.nowS = content.now_s;
  page.at = performance.now();
  addPoint(content.point);
  draw();
}

function draw() {
  const { shown } = page;
  if (!shown || document.hidden) return;
  mark($("main"), "data-state", "shown");
  showFacts(shown);
  showKpis(shown);
  showClasses(shown);
  showCounts(shown);
  showPools(shown);
  showReplicas(shown);
  showRouters(shown);
  cameras.show(shown.cameras);
  say($("flow-unit"), drawFlow($("flow"), shown.flows, shown.buckets));
  drawCharts();
  mark(document.documentElement, "data-number", String(shown.point.number));
}

function drawCharts() {
  const nowS = page.shown.point.at_s;
  const spanS = Math.min(SPAN_S, 60 * Math.max(1, Math.ceil((nowS - page.points[0].at_s) / 60)));
  drawChart($("latency-chart"), page.points, {
    nowS, spanS, least: 0.01, axis: latency, label: "p99 of each class over the last three minutes",
    layers: CLASSES.map((name) => ({ name, kind: "line", valueOf: (point) => point.p99_s[name] })),
  });
  const finished = (point) => point.outcomes_hz.finished ?? 0;
  drawChart($("rate-chart"), page.points, {
    nowS, spanS, least: 1, axis: (value) => (value < 10 ? rate(value) : count(value)), label: "Frames a second over the last three minutes",
    layers: [
      { name: "finished", kind: "area", valueOf: finished },
      { name: "unserved", kind: "area", valueOf: (point) => Math.max(finished(point), point.frames_hz), baseOf: finished },
    ],
  });
}

/** The pill in the corner, and the notice where something is wrong. */
function showState() {
  const isAway = page.state === "live" && page.away;
  const state = isAway ? "away" : page.state;
  mark($("state"), "data-state", state);
  mark(document.documentElement, "data-state", state);
  const words = { connecting: "connecting", live: page.shown ? "live" : "connected", lost: "reconnecting", key: "key needed", full: "full", away: "service away" };
  say($("state-text"), words[state]);
  const ageS = page.shown ? (performance.now() - page.at) / 1000 : null;
  const old = ageS !== null ? ` What you see is ${duration(ageS)} old.` : "";
  const notices = {
    away: `The service does not answer: ${page.away.replace(/^service: /, "")}.${old}`,
    lost: `No connection to this page's server: ${page.why}. Trying again.${old}`,
    full: `${page.why}.${old}`,
  };
  say($("notice"), notices[state] ?? "");
  $("notice").hidden = !notices[state];
}

function askForKey(why) {
  const dialog = $("key-dialog");
  if (headers().Authorization) say($("key-why"), why ? `The last one was refused: ${why}.` : "The last one is not known here; use one of its API keys.");
  if (!dialog.open) dialog.showModal();
  $("key").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  page.key = $("key").value.trim();
  remembered(sessionStorage, "framelane-key", page.key);
  $("key").value = "";
  $("key-dialog").close();
  stream.start();
});
$("key-dialog").addEventListener("cancel", (event) => event.preventDefault());

function useTheme(theme) {
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else mark(document.documentElement, "data-theme", theme);
  say($("theme"), theme[0].toUpperCase() + theme.slice(1));
  page.theme = theme;
}
$("theme").addEventListener("click", () => {
  useTheme(THEMES[(THEMES.indexOf(page.theme) + 1) % THEMES.length]);
  remembered(localStorage, "framelane-theme", page.theme);
});
const kept = remembered(localStorage, "framelane-theme");
useTheme(THEMES.includes(kept) ? kept : "auto");

// Who does not look is no viewer: the service then keeps no frames for this page.
let hiding = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => {
      stream.stop();
      page.state = "paused";
    }, HIDDEN_MS);
  } else {
    if (page.state === "paused") stream.start();
    draw();
  }
});
let width = 0;
new ResizeObserver(([entry]) => {
  if (entry.contentRect.width === width) return; // heights change with every look
  width = entry.contentRect.width;
  requestAnimationFrame(draw);
}).observe($("main"));
setInterval(showState, 1000);
addEventListener("pagehide", () => stream.stop());
addEventListener("pageshow", (event) => event.persisted && stream.start());
stream.start();
