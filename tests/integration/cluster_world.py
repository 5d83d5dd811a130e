"""A cluster of several nodes on this machine, started by the commands of `cluster.yaml` and ended by process id."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FOLDER_THERE = "~/framelane/"
# On a busy machine a node that does not join within Ray's half a minute gives up.
STOP_S, NUM_ATTEMPTS = 20.0, 4
# Several nodes share this machine, and frames of tests are small.
SMALL = "--num-cpus=2 --num-gpus=2 --object-store-memory=100000000 --block"
TOKEN = "0123456789abcdef" * 4


def start_command(config, of):
    """The one command of a cluster config that starts Ray on a head or a worker."""
    (command,) = (line for line in config[f"{of}_start_ray_commands"] if " start " in line)
    return command


def variables(command):
    """What a command sets in the environment of what it runs."""
    assigned = [word for word in shlex.split(command) if "=" in word and not word.startswith("-")]
    return dict(word.split("=", 1) for word in assigned)


class StartedCluster:
    """A head without CPUs, and one node for each set of labels; every process is ours and ends with us."""

    def __init__(self, folder, environment):
        self.folder = folder
        # Nodes that end need not be quiesced first: all end.
        self.environment = environment | {"RAY_AUTH_TOKEN": TOKEN, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        self.config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.processes = {}
        self.ray_folder = Path(tempfile.mkdtemp(prefix="ray-"))  # names of sockets must be short

    def start_head(self, **more):
        """Start the head and wait until it runs; `more` goes into its environment."""
        command = start_command(self.config, "head").replace("--port=6379", f"--port={self.port}")
        command = command.replace("--autoscaling-config=~/ray_bootstrap_config.yaml", "")
        ours = f"--block --include-dashboard=false --object-store-memory=100000000 --temp-dir={self.ray_folder}"
        # A head on a machine of its own finds no trace of the one before, and no raylets of its cluster.
        (self.ray_folder / "ray_current_cluster").unlink(missing_ok=True)
        self._join("head", f"{command} {ours} --ray-client-server-port={free_port()}", more)

    def start_worker(self, name, labels):
        """Start a worker and wait until it has joined."""
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(labels))
        command = start_command(self.config, "worker").replace("$RAY_HEAD_IP:6379", self.address)
        command = f"{command} {SMALL}".replace("~/framelane/labels.yaml", str(self.folder / f"{name}.yaml"))
        self._join(name, command, {})

    def _join(self, name, command, more):
        log = self.folder / f"{name}.log"
        for _ in range(NUM_ATTEMPTS):
            before = log.stat().st_size if log.exists() else 0
            self._start(name, command, more)
            process = self.processes[name]
            while process.poll() is None:
                if b"Ray runtime started" in log.read_bytes()[before:]:
                    return
                time.sleep(0.1)
        raise AssertionError(log.read_text())

    def _start(self, name, command, more):
        command = command.replace(f"{FOLDER_THERE}venv/bin/", f"{Path(sys.executable).parent}/")
        assert FOLDER_THERE not in command, command
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["/bin/sh", "-c", f"exec env {command}"],
                env=self.environment | more, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def stop(self):
        """End everything that was started: workers first, each with the processes of its own session."""
        for process in reversed(self.processes.values()):
            process.terminate()
        give_up_s = time.monotonic() + STOP_S
        for process in self.processes.values():
            try:
                process.wait(max(0.1, give_up_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.ray_folder, ignore_errors=True)


def free_port():
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
