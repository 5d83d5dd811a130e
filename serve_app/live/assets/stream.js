// Server-sent events over fetch, which can carry a key: reconnects, says where it stopped, and notices silence.

const SILENT_MS = 16000; // three heartbeats
const MOST_WAIT_MS = 8000;

export class Stream {
  /** url; onEvent(kind, content); onState("connecting" | "live" | "lost" | "key" | "full", text); headers(). */
  constructor({ url, onEvent, onState, headers }) {
    Object.assign(this, { url, onEvent, onState, headers });
    this.lastId = "";
    this.tries = 0;
    this.retryMs = 1000;
    this.run = 0;
  }

  start() {
    this.stop();
    this.go(this.run);
  }

  stop() {
    this.run += 1;
    this.abort?.abort();
  }

  async go(run) {
    while (run === this.run) {
      let wait = null;
      try {
        wait = await this.read(run);
      } catch (error) {
        if (run !== this.run) return;
        this.onState("lost", error.name === "AbortError" ? "it has been silent" : "it cannot be reached");
      }
      if (run !== this.run || wait === "stop") return;
      const backOff = Math.min(MOST_WAIT_MS, this.retryMs * 2 ** Math.min(this.tries, 5));
      this.tries += 1;
      await new Promise((done) => setTimeout(done, wait ?? backOff * (0.5 + Math.random() / 2)));
    }
  }

  async read(run) {
    const abort = (this.abort = new AbortController());
    let watchdog = setTimeout(() => abort.abort(), SILENT_MS);
    try {
      const headers = { Accept: "text/event-stream", ...this.headers() };
      if (this.lastId) headers["Last-Event-ID"] = this.lastId;
      const answer = await fetch(this.url, { headers, signal: abort.signal, cache: "no-store", credentials: "omit" });
      if (answer.status === 401 || answer.status === 403) {
        this.onState("key", answer.status === 403 ? "this key may not look" : "");
        return "stop";
      }
      if (answer.status === 503 && answer.headers.get("Retry-After")) {
        this.onState("full", (await answer.json().catch(() => ({}))).detail ?? "too many people watch");
        return 1000 * Number(answer.headers.get("Retry-After"));
      }
      if (!answer.ok || !(answer.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
        this.onState("lost", `it answered ${answer.status}`);
        return null;
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      let event = { kind: "message", data: [] };
      for (;;) {
        const { value, done } = await reader.read();
        if (run !== this.run) return "stop";
        if (done) break;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(), SILENT_MS);
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (line === "") {
            if (event.data.length) {
              if (event.id !== undefined) this.lastId = event.id;
              this.tries = 0;
              this.onState("live", "");
              this.onEvent(event.kind, JSON.parse(event.data.join("\n")));
            }
            event = { kind: "message", data: [] };
            continue;
          }
          const at = line.indexOf(":");
          const [field, text] = at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
          if (field === "id") event.id = text;
          else if (field === "event") event.kind = text;
          else if (field === "data") event.data.push(text);
          else if (field === "retry" && /^\d+$/.test(text)) this.retryMs = Number(text);
        }
      }
      this.onState("lost", "it closed the line");
      return null;
    } finally {
      clearTimeout(watchdog);
    }
  }
}
