"""A network camera of our own on 127.0.0.1: motion JPEG over HTTP, in a process that tests kill, stop and start.

    python camera_server.py PORT [WIDTHxHEIGHT,… [FPS [NUM_FRAMES_EACH]]]

Its frames have the sizes in turn, so many of each; without an end. `0x0` accepts the connection and sends nothing.
"""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

STARTED_S = 20.0


def jpegs(sizes, num_each):
    """Encoded frames without an end; a bar moves."""
    for number in itertools.count():
        width, height = sizes[number // num_each % len(sizes)]
        image = np.full((height, width, 3), 90, np.uint8)
        left = number * 8 % width
        image[:, left : left + 24] = 230
        yield cv2.imencode(".jpg", image)[1].tobytes()


def serve(port, sizes, fps, num_each):
    """Serve until killed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            if sizes[0] == (0, 0):
                time.sleep(3600)
            for jpeg in jpegs(sizes, num_each):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    return
                time.sleep(1 / fps)

        def log_message(self, *_):
            """Nobody reads it."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def free_port():
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class CameraServer:
    """The process, with a port that stays the same over restarts."""

    def __init__(self, sizes="320x240", fps=10, num_each=1_000_000):
        self.port = free_port()
        self._arguments = [sizes, str(fps), str(num_each)]
        self._process = None

    @property
    def address(self):
        """With a password that nobody may ever read."""
        return f"http://user:secret@127.0.0.1:{self.port}/video"

    def start(self):
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen([sys.executable, __file__, str(self.port), *self._arguments])
        give_up_s = time.monotonic() + STARTED_S
        while time.monotonic() < give_up_s:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise TimeoutError(f"no camera listens at port {self.port}")

    def freeze(self):
        """It accepts and sends nothing any more, like a camera whose encoder hangs."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self):
        """As a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()


if __name__ == "__main__":
    defaults = ["320x240", "10", "1000000"]
    given = [*sys.argv[2:], *defaults[len(sys.argv) - 2 :]]
    serve(
        int(sys.argv[1]),
        [tuple(int(side) for side in size.split("x")) for size in given[0].split(",")],
        float(given[1]), int(given[2]),
    )  # fmt: skip
