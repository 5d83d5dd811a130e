"""Eight cameras of different sizes for minutes: is everything accounted for, and does memory stay flat?

Usage: python bench/streams.py VIDEO [--seconds S] [--fps F] [--restart]

VIDEO is scaled to eight sizes; one of the eight copies is served over HTTP by a process of its own, which is killed
after a third of the time and started again. All are played against a service of `framelane up` in a temporary folder.
`--restart`: afterwards the service is stopped and started while the stream runs on.

Prints for each camera frames read, answered and in gaps by cause, whether they came in order with no number missing,
and the memory of this process: its mean and its slope with the standard error, after a warm-up of two fifths.
Exit status 1: a frame is unaccounted for or out of order, a camera was disturbed by another, or memory grows by more
than chance explains and more than 1 MiB a minute, over 150 s or more: Ray and the allocator take minutes to settle.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from slope import slope_of

from serve_app.allocator import share_arenas
from serve_app.streams import Answer, CameraSpec, Gap, GapCause, Stream

SIZES_WH = ((768, 576), (640, 480), (512, 384), (480, 640), (405, 541), (384, 288), (320, 240), (160, 120))
NETWORK = "network"
STEPS_PX = 32
MIB = 2**20
SAMPLE_S = 0.5
# A minute's noise of an allocator that has just begun.
FLAT_BYTES_A_S = MIB / 60
WARM_UP_FRACTION = 0.4
# A shorter run convicts nobody.
LEAST_S = 149.0
SERVER = Path(__file__).parent.parent / "tests" / "integration" / "camera_server.py"
FRAMELANE = Path(sys.executable).with_name("framelane")
BACK_S = 240.0


class Account:
    """What was given of one camera, checked as it comes."""

    def __init__(self, camera: str) -> None:
        """Take whose."""
        self.camera = camera
        self.next_number = 0
        self.num_answered = 0
        self.gaps: Counter[GapCause] = Counter()
        self.breaks: Counter[GapCause] = Counter()
        self.is_in_order = True
        self.longest_pause_s = 0.0
        self._last_s: float | None = None

    def add(self, item: Answer | Gap) -> None:
        """An answer or a gap."""
        first, count = (item.frame.number, 1) if isinstance(item, Answer) else (item.first_number, item.num_frames)
        self.is_in_order &= first == self.next_number
        self.next_number = first + count
        if isinstance(item, Gap):
            self.gaps[item.cause] += count
            self.breaks[item.cause] += count == 0
            return
        self.num_answered += 1
        now_s = time.monotonic()
        self.longest_pause_s = max(self.longest_pause_s, now_s - (self._last_s or now_s))
        self._last_s = now_s

    def line(self, num_read: int) -> str:
        """In words."""
        gaps = ", ".join(f"{count} {cause.value}" for cause, count in self.gaps.items() if count) or "none"
        breaks = "".join(f", {count} x {cause.value}" for cause, count in self.breaks.items() if count)
        order = "in order" if self.is_in_order else "OUT OF ORDER"
        missing = num_read - self.num_answered - self.gaps.total()
        return (
            f"{self.camera:10} read {num_read:5} answered {self.num_answered:5} gaps: {gaps}{breaks}; "
            f"{missing} not given; {order}; longest pause {self.longest_pause_s:.1f} s"
        )


class Service:
    """`framelane up` in a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Take where; a canvas for each size."""
        self._folder = folder
        os.environ["FRAMELANE_STATE_DIR"] = str(folder / "state")
        canvases = sorted({tuple(-(-side // STEPS_PX) * STEPS_PX for side in (h, w)) for w, h in SIZES_WH})
        buckets = "".join(f"  b{h}x{w}: {{canvases: [[{h}, {w}]]}}\n" for h, w in canvases)
        (folder / "plan.yaml").write_text(f'models: {{light: "bundled:inspection-light"}}\nbuckets:\n{buckets}')

    def run(self, *arguments: str) -> None:
        """One command; raises when it fails."""
        subprocess.run([FRAMELANE, *arguments], cwd=self._folder, check=True, stdout=subprocess.DEVNULL)

    def up(self) -> None:
        """Start it."""
        self.run("up", "plan.yaml")

    def down(self) -> None:
        """Stop it."""
        self.run("down")


def scaled(video: Path, folder: Path) -> list[Path]:
    """The first frames of the video in each size, as motion JPEG."""
    paths = [folder / f"{w}x{h}.avi" for w, h in SIZES_WH[:-1]]
    writers = [
        cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
        for path, size in zip(paths, SIZES_WH, strict=False)
    ]
    capture = cv2.VideoCapture(str(video))
    for _ in range(300):
        got, image = capture.read()
        if not got:
            break
        for writer, size in zip(writers, SIZES_WH, strict=False):
            writer.write(np.asarray(cv2.resize(image, size), np.uint8))
    for writer in writers:
        writer.release()
    return paths


def resident_bytes() -> float:
    """Of this process, without what it shares with the object store."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024.0 * int(line.split()[1])
    raise RuntimeError("/proc/self/status tells no RssAnon; a Linux of 4.5 or newer is needed")


class Camera:
    """The camera that is killed."""

    def __init__(self, port: int) -> None:
        """Take where it listens."""
        self.address = f"http://127.0.0.1:{port}/video"
        width, height = SIZES_WH[-1]
        self._command = [sys.executable, str(SERVER), str(port), f"{width}x{height}", "10"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; the stream finds out by itself when it listens."""
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        """As a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Drive:
    """What happens to the stream while it runs, by the clock."""

    def __init__(self, stream: Stream, accounts: Mapping[str, Account], camera: Camera, service: Service) -> None:
        """Take what is driven."""
        self._stream = stream
        self._accounts = accounts
        self._camera = camera
        self._service = service
        self.samples: list[tuple[float, float]] = []

    async def run(self, seconds: float, *, restart: bool) -> None:
        """The camera is killed and started, then perhaps the service; in the end the stream is stopped."""
        began_s = time.monotonic()
        await self._sample(began_s, seconds / 3)
        self._camera.kill()
        print(f"{seconds / 3:.0f} s: the network camera is killed", flush=True)
        await self._sample(began_s, seconds / 2)
        self._camera.start()
        print(f"{seconds / 2:.0f} s: it is started again", flush=True)
        await self._sample(began_s, seconds)
        for account in self._accounts.values():
            print(account.line(self._stream.num_read[account.camera]), flush=True)
        if restart:
            await self._restart()
        self._stream.stop()

    async def _sample(self, began_s: float, until_s: float) -> None:
        while (now_s := time.monotonic() - began_s) < until_s:
            self.samples.append((now_s, resident_bytes()))
            await asyncio.sleep(SAMPLE_S)

    async def _restart(self) -> None:
        print("the service is stopped and started", flush=True)
        began_s = time.monotonic()
        await asyncio.to_thread(self._service.down)
        await asyncio.to_thread(self._service.up)
        up_s = time.monotonic()
        before = {name: account.num_answered for name, account in self._accounts.items()}
        while any(account.num_answered <= before[name] for name, account in self._accounts.items()):
            if time.monotonic() - up_s > BACK_S:
                print("NOT ALL CAMERAS CAME BACK", flush=True)
                return
            await asyncio.sleep(SAMPLE_S)
        back_s = time.monotonic() - up_s
        print(f"down and up took {up_s - began_s:.1f} s; all cameras are answered {back_s:.1f} s later", flush=True)


async def played(options: argparse.Namespace, folder: Path, service: Service) -> bool:
    """Play, print; whether all was well."""
    camera = Camera(options.port)
    camera.start()
    specs = [
        CameraSpec(str(path), name=path.stem, realtime=True, loop=True, max_fps=options.fps, slo_s=5.0)
        for path in scaled(options.video, folder)
    ]
    specs.append(CameraSpec(camera.address, name=NETWORK, max_fps=options.fps, slo_s=5.0, stall_s=5.0))
    accounts = {spec.name: Account(spec.name) for spec in specs}
    try:
        async with Stream(specs) as stream:
            drive = Drive(stream, accounts, camera, service)
            driving = asyncio.create_task(drive.run(options.seconds, restart=options.restart))
            async for item in stream:
                accounts[item.camera].add(item)
            await driving
            num_read = stream.num_read
    finally:
        camera.kill()
    return told(accounts, num_read, drive.samples)


def told(accounts: Mapping[str, Account], num_read: Mapping[str, int], samples: list[tuple[float, float]]) -> bool:
    """Print what became of it all; whether it is well."""
    print("at the end:")
    is_well = True
    for name, account in accounts.items():
        print(account.line(num_read[name]))
        is_well &= account.is_in_order and account.next_number == num_read[name] and account.num_answered > 0
        # Only the camera that was killed was away.
        is_well &= (account.breaks[GapCause.RECONNECTING] > 0) == (name == NETWORK)
    slope = slope_of(samples, WARM_UP_FRACTION)
    seconds = samples[-1][0]
    is_flat, is_short = slope.is_flat(FLAT_BYTES_A_S), seconds < LEAST_S
    verdict = "flat" if is_flat else "too short to tell" if is_short else "GROWS"
    print(
        f"memory of this process: {slope.mean / MIB:.1f} MiB, {60 * slope.per_s / MIB:+.2f} ± "
        f"{60 * slope.error_per_s / MIB:.2f} MiB a minute over {seconds:.0f} s: {verdict}"
    )
    print(f"by minute: {', '.join(f'{each / MIB:.1f}' for each in _by_minute(samples))} MiB")
    return is_well and (is_flat or is_short)


def _by_minute(samples: list[tuple[float, float]]) -> list[float]:
    """The mean of each minute."""
    minutes = itertools.groupby(samples, lambda sample: int(sample[0] // 60))
    return [statistics.fmean(held_bytes for _, held_bytes in minute) for _, minute in minutes]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--fps", type=float, default=5.0, help="most frames a second of each camera")
    parser.add_argument("--port", type=int, default=18_790, help="where the network camera listens")
    parser.add_argument("--restart", action="store_true", help="stop and start the service at the end")
    options = parser.parse_args()
    share_arenas()  # as `framelane stream` does
    with tempfile.TemporaryDirectory() as name:
        service = Service(Path(name))
        service.up()
        try:
            return 0 if asyncio.run(played(options, Path(name), service)) else 1
        finally:
            service.down()


if __name__ == "__main__":
    sys.exit(main())
