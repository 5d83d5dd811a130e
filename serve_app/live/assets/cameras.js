// A tile a camera: its last annotated frame, how it is served, how fast. Tiles stay; their texts and pictures change.

import { $, el, mark, say } from "./dom.js";
import { duration, latency, plural, rate } from "./text.js";

const SILENT_S = 10;
const MAX_LOADING = 4;
const FILTER_FROM = 9;

export class Cameras {
  /** headers() carry the key, if there is one. */
  constructor(holder, headers) {
    this.holder = holder;
    this.headers = headers;
    this.tiles = new Map();
    this.wanted = new Map();
    this.loading = new Set();
    this.visible = new Set();
    this.observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) this.visible[isIntersecting ? "add" : "delete"](target.dataset.key);
      this.load();
    }, { rootMargin: "120px" });
    $("filter").addEventListener("input", () => this.filter());
  }

  show(cameras) {
    const keys = new Set(cameras.map((camera) => camera.key));
    for (const [key, tile] of this.tiles) {
      if (keys.has(key)) continue;
      this.observer.unobserve(tile.root);
      tile.root.remove();
      this.tiles.delete(key);
      this.wanted.delete(key);
    }
    let after = null;
    for (const camera of cameras) {
      const tile = this.tiles.get(camera.key) ?? this.tile(camera.key);
      const place = after ? after.nextSibling : this.holder.firstChild;
      if (place !== tile.root) this.holder.insertBefore(tile.root, place);
      after = tile.root;
      this.update(tile, camera);
    }
    this.empty ??= el("p.empty.card", null, "No frame has come yet. Send some with ", el("code", null, "framelane stream video.mp4"), ", ", el("code", null, "Client.detect"), " or ", el("code", null, "POST /v1/detect"), "; their cameras appear here.");
    if (cameras.length) this.empty.remove();
    else this.holder.replaceChildren(this.empty);
    mark(this.holder, "data-count", cameras.length > 24 ? "many" : cameras.length > 1 ? "some" : "one");
    const silent = cameras.filter((camera) => camera.age_s > SILENT_S).length;
    say($("cameras-count"), cameras.length ? `${cameras.length}${silent ? `, ${silent} silent` : ""}` : "");
    $("filter").hidden = cameras.length < FILTER_FROM;
    this.filter();
    this.load();
  }

  tile(key) {
    const image = el("img", { alt: "", decoding: "async" });
    const parts = {
      image,
      none: el("span.none", null, "no picture yet"),
      priority: el("span.chip.priority"),
      rung: el("span.chip.rung"),
      name: el("span.name"),
      hz: el("span.hz"),
      size: el("span.size"),
      canvas: el("span.canvas"),
      took: el("span.took"),
      trouble: el("p.trouble"),
    };
    const way = el("span.way", null, parts.size, parts.canvas);
    const root = el("article.camera", { "data-key": key },
      el("div.picture", null, image, parts.none, el("div.chips", null, parts.priority, parts.rung)),
      el("div.line", null, parts.name, parts.hz), el("div.line.minor", null, way, parts.took), parts.trouble);
    const tile = { root, way, shown: null, ...parts };
    this.tiles.set(key, tile);
    this.observer.observe(root);
    return tile;
  }

  update(tile, camera) {
    const isSilent = camera.age_s > SILENT_S;
    const isUnserved = camera.outcome !== "finished";
    mark(tile.root, "data-state", isSilent ? "silent" : isUnserved ? "unserved" : "live");
    if (tile.camera !== camera.name) {
      tile.camera = camera.name;
      say(tile.name, camera.name);
      tile.name.title = camera.name;
      tile.image.alt = `Last frame of ${camera.name}`;
    }
    say(tile.priority, camera.priority);
    mark(tile.priority, "data-priority", camera.priority);
    say(tile.rung, camera.rung ? `rung ${camera.rung}` : "");
    tile.rung.hidden = !camera.rung;
    say(tile.hz, `${rate(camera.hz)} /s`);
    const canvas = camera.canvas ? ` → ${camera.canvas}${camera.num_tiles ? ` × ${camera.num_tiles} tiles` : ""}` : "";
    say(tile.size, camera.size);
    say(tile.canvas, canvas);
    tile.way.title = camera.bucket ? `bucket ${camera.bucket}, pool ${camera.pool}, model ${camera.model ?? "none"}, ${plural(camera.num_boxes, "box", "boxes")}` : "";
    say(tile.took, camera.total_s === null ? "" : latency(camera.total_s));
    say(tile.trouble, isSilent ? `silent for ${duration(camera.age_s)}` : isUnserved ? `last frame: ${camera.outcome}` : "");
    if (camera.picture && camera.picture !== tile.shown) this.wanted.set(camera.key, camera.picture);
  }

  filter() {
    const words = $("filter").hidden ? "" : $("filter").value.trim().toLowerCase();
    for (const tile of this.tiles.values()) tile.root.hidden = Boolean(words) && !tile.camera.toLowerCase().includes(words);
  }

  /** Fetch pictures that are new and in sight, few at a time. */
  load() {
    for (const [key, picture] of this.wanted) {
      if (this.loading.size >= MAX_LOADING) return;
      if (!this.visible.has(key) || this.loading.has(key)) continue;
      this.wanted.delete(key);
      this.loading.add(key);
      this.fetchOne(key, picture).finally(() => {
        this.loading.delete(key);
        this.load();
      });
    }
  }

  async fetchOne(key, picture) {
    try {
      const answer = await fetch(`live/pictures/${key}`, { headers: this.headers(), cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(10000) });
      const tile = this.tiles.get(key);
      if (answer.status !== 200 || !tile) return;
      const address = URL.createObjectURL(await answer.blob());
      tile.image.onload = tile.image.onerror = () => URL.revokeObjectURL(address);
      tile.image.src = address;
      tile.shown = picture;
      mark(tile.root, "data-picture", "shown");
    } catch {
      // The next look asks again.
    }
  }
}
