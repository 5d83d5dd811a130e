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

pytestmark = pytest.mark.cluster

PLAN = 'models: {light: "bundled:inspection-light"}\nbuckets: {small: {canvases: [[256, 320]]}}\n'
PATIENCE_S = 90.0
GAUGE = "ray_framelane_ready_replicas{"
# In bold, on a terminal.
HEADER = "\x1b[1mframelane\x1b[0m  up "


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
    """It waits for a service, shows it, says that it is away, and gives the terminal back at Ctrl-C."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    framelane.environment["RAY_metrics_report_interval_ms"] = "1000"
    page = Watcher(framelane, terminal=True)
    try:
        page.until("none of yours runs")
        up = framelane("up", "plan.yaml", "--metrics-port", port)
        assert up.returncode == 0, up.stderr
        page.until(f":{port}/metrics", page.until(HEADER))
        lines = Watcher(framelane, "--json")
        try:
            lines.until("\n")
            assert json.loads(lines.text.splitlines()[0])["pools"][0]["num_ready"] == 1
        finally:
            assert lines.interrupt() == 0
        give_up_s = time.monotonic() + PATIENCE_S
        while GAUGE not in scrape(port) and time.monotonic() < give_up_s:
            time.sleep(0.5)
        assert GAUGE in scrape(port)  # before any frame
        assert framelane("down").returncode == 0
        page.until("as it was last:", page.until("it was stopped"))
        assert page.interrupt() == 0
    finally:
        if page.process.poll() is None:
            page.process.kill()
            page.process.wait()
        framelane("down")
    # The screen and the cursor are given back, and the last page stays.
    left = page.text.rpartition("\x1b[?1049l")[2]
    assert "\x1b[?25h" in page.text.rpartition("\x1b[?25l")[2]
    assert HEADER in left
    assert "Traceback" not in page.text


def test_a_port_for_metrics_belongs_to_a_ray_of_our_own(framelane):
    """On a cluster it is set where its nodes start."""
    process = framelane("up", "--address", "127.0.0.1:1", "--metrics-port", "9100")

    assert process.returncode == 1
    assert "ray start --metrics-export-port" in process.stderr
