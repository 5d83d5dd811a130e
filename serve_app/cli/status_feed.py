"""Looks at a service again and again, in a process of its own: Ray ends a process whose cluster has gone for good."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection

from serve_app.errors import FramelaneError
from serve_app.service_view import ServiceView

# How soon a service that is not there is looked for again.
RETRY_S = 1.0
# So long may the child take to leave, which has nothing to save; then it is killed.
END_S = 3.0


class Feed:
    """A child process that looks every few seconds and sends what it saw; it ends when it has lost a service."""

    def __init__(self, address: str | None, every_s: float) -> None:
        """Start the child; `address` is as for `Client.connect`."""
        context = multiprocessing.get_context("spawn")  # threads of a parent's Ray would not survive a fork
        self._line, childs_line = context.Pipe()
        # The child leaves when the line does, however we end.
        self._child = context.Process(target=_look_again_and_again, args=(childs_line, address, every_s), daemon=True)
        self._child.start()
        childs_line.close()

    def next(self, timeout_s: float) -> ServiceView | str | None:
        """The next look, or what is wrong; None: nothing came in time. Raises `EOFError` when there are no more."""
        try:
            if not self._line.poll(timeout_s):
                return None
            answer: ServiceView | str = self._line.recv()
        except OSError as err:
            raise EOFError(str(err)) from err
        return answer

    def close(self) -> None:
        """End the child."""
        self._line.close()
        self._child.terminate()
        self._child.join(END_S)
        if self._child.is_alive():
            self._child.kill()
            self._child.join()


def _look_again_and_again(line: Connection, address: str | None, every_s: float) -> None:
    """The child: send views until nobody listens, or why that has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    # What Ray says when a cluster goes is no part of the page.
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (until the process ends)
    for stream in (1, 2):
        os.dup2(sys.stdout.fileno(), stream)
    import ray

    try:
        while not _looked_until_lost(line, address, every_s):
            # Once connected, Ray cannot be trusted to let go of a cluster that has gone: the next process begins anew.
            if ray.is_initialized() or line.poll(RETRY_S):
                return
    except (BrokenPipeError, ConnectionResetError, EOFError):  # nobody listens any more
        return


def _looked_until_lost(line: Connection, address: str | None, every_s: float) -> bool:
    """Send views; True if nobody listens any more, False after having sent what went wrong."""
    from serve_app.client import Client
    from serve_app.cluster_look import look

    try:
        client = Client.connect(address)
        while client.is_hosted():
            line.send(look(client))
            if line.poll(every_s):  # nothing is ever sent here: it was closed
                return True
        line.send("service: it was stopped")
    except FramelaneError as err:
        line.send(str(err))
    except (BrokenPipeError, ConnectionResetError, EOFError):
        raise
    except Exception as err:  # it must be seen, and the screen is the parent's
        line.send(f"status: {type(err).__name__}: {err}")
    return False
