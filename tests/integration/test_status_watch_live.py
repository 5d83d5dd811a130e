"""`framelane status --watch` beside a real service that is stopped and started anew; metrics on a chosen port."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

PLAN = 'models: {light: "bundled:inspection-light"}\nbuckets: {small: {canvases: [[256, 320]]}}\n'
PATIENCE_S = 60.0


class Watcher:
    """A `framelane status --watch` that runs, and what it has written so far."""

    def __init__(self, framelane, *arguments, terminal=False):
        self._written = []
        reader, writer = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            [str(framelane.path), "status", "--watch", "--every", "0.5", *arguments],
            cwd=framelane.folder, env=framelane.environment | {"TERM": "xterm"}, stdin=subprocess.DEVNULL,
            stdout=writer, stderr=subprocess.STDOUT,
        )  # fmt: skip
        os.close(writer)
        self._reader = threading.Thread(target=self._read, args=(reader,))
        self._reader.start()

    def _read(self, reader):
        try:
            while chunk := os.read(reader, 65536):
                self._written.append(chunk.decode(errors="replace"))
        except OSError:  # the other end of a terminal is gone
            pass
        os.close(reader)

    @property
    def text(self):
        """All that was written."""
        return "".join(self._written)

    def until(self, word, after=0):
        """Wait until this is written behind a place; the place behind it."""
        give_up_s = time.monotonic() + PATIENCE_S
        while (found := self.text.find(word, after)) < 0:
            assert time.monotonic() < give_up_s, self.text[after:]
            assert self.process.poll() is None, self.text
            time.sleep(0.1)
        return found + len(word)

    def interrupt(self):
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(timeout=20)
        self._reader.join(timeout=20)
        return status


@pytest.fixture
def port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def scrape(port):
    """What the endpoint says; nothing if there is none yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.URLError:
        return ""


def test_watching_outlives_the_service(framelane, tmp_path, port):
    """It says that the service is away, finds the next one, and lets go of the terminal at Ctrl-C."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    framelane.environment["RAY_metrics_report_interval_ms"] = "1000"
    watchers = []
    try:
        up = framelane("up", "plan.yaml", "--metrics-port", port)
        assert up.returncode == 0, up.stderr
        watchers = [Watcher(framelane, terminal=True), Watcher(framelane, "--json")]
        page, lines = watchers
        at = page.until("framelane  up ")
        page.until(f":{port}/metrics", at)
        lines.until("\n")
        assert json.loads(lines.text.splitlines()[0])["pools"][0]["num_ready"] == 1
        give_up_s = time.monotonic() + PATIENCE_S
        while "ray_framelane_ready_replicas{" not in scrape(port) and time.monotonic() < give_up_s:
            time.sleep(0.5)
        assert "ray_framelane_ready_replicas{" in scrape(port)  # before any frame
        assert framelane("down").returncode == 0
        at = page.until("away for ", len(page.text))
        page.until("as it was last:", at)
        num_before = len(lines.text.splitlines())
        assert framelane("up", "plan.yaml").returncode == 0
        at = page.until("\x1b[1mframelane\x1b[0m  up ", len(page.text))
        give_up_s = time.monotonic() + PATIENCE_S
        while len(lines.text.splitlines()) <= num_before and time.monotonic() < give_up_s:
            time.sleep(0.1)
        assert json.loads(lines.text.splitlines()[-1])["pools"][0]["num_ready"] == 1
        assert [watcher.interrupt() for watcher in watchers] == [0, 0]
        assert "Traceback" not in page.text + lines.text
        assert page.text.rstrip().endswith("/metrics\x1b[0m") or "\x1b[?25h" in page.text  # the cursor is back
    finally:
        for watcher in watchers:
            if watcher.process.poll() is None:
                watcher.process.kill()
                watcher.process.wait()
        framelane("down")


def test_a_port_for_metrics_belongs_to_a_ray_of_our_own(framelane):
    """On a cluster it is set where its nodes start."""
    process = framelane("up", "--address", "127.0.0.1:1", "--metrics-port", "9100")

    assert process.returncode == 1
    assert "ray start --metrics-export-port" in process.stderr
