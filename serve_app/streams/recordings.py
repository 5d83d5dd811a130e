"""The recordings of a stream: a file a camera, another one when its size changes; one that fails stops alone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serve_app.drawing import draw_detections
from serve_app.streams.camera_spec import CameraListError
from serve_app.streams.open_source import has_pyav
from serve_app.streams.recorder import Recorder, RecordingError
from serve_app.streams.stream_values import Answer, StreamItem

# File systems take 255 bytes; a letter takes up to four, and a number and an ending follow.
MAX_STEM_BYTES = 200
# Drawing and encoding must not take all cores from the detector.
MAX_WRITING = 2
# Of a camera that waits for nobody: with more frames than this behind, the next one is not recorded.
MAX_BEHIND = 4


class Recordings:
    """Draws and writes the answers of all cameras; each camera's one after the other."""

    def __init__(self, folder: Path) -> None:
        """Take where to; files are made by the first answers.

        Raises:
            CameraListError: PyAV is not installed, or the folder cannot be made or written to.
        """
        if not has_pyav():
            raise CameraListError("record: PyAV is needed to write videos; pip install 'framelane[video]'")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise CameraListError(f"record: {folder}: cannot be made ({(err.strerror or str(err)).lower()})") from err
        if not os.access(folder, os.W_OK):
            raise CameraListError(f"record: {folder}: may not be written to; choose another folder")
        self._folder = folder
        self._turns = threading.Semaphore(MAX_WRITING)
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._behind: Counter[str] = Counter()
        self._recorders: dict[str, Recorder | None] = {}
        self._stems: dict[str, str] = {}
        self.num_skipped: Counter[str] = Counter()
        self.problems: dict[str, str] = {}

    async def add(self, item: StreamItem, *, may_skip: bool) -> None:
        """Record an answer; from the event loop.

        With `may_skip` it returns at once, and leaves the frame out (counted in `num_skipped`) when the recording is
        behind; otherwise it waits. What ends a recording stands in `problems`.
        """
        camera = item.camera
        if not isinstance(item, Answer) or camera in self.problems:
            return
        if may_skip and self._behind[camera] >= MAX_BEHIND:
            self.num_skipped[camera] += 1
            return
        if camera not in self._threads:
            self._threads[camera] = ThreadPoolExecutor(1, thread_name_prefix=f"recording {camera}")
        self._behind[camera] += 1
        writing = asyncio.get_running_loop().run_in_executor(self._threads[camera], self._write, item)
        writing.add_done_callback(lambda _: self._behind.subtract((camera,)))
        if not may_skip:
            await writing

    async def close(self) -> None:
        """Finish all files; what could not be finished stands in `problems`."""
        await asyncio.to_thread(self._close)

    def _write(self, answer: Answer) -> None:
        """On the camera's thread."""
        with self._turns:
            try:
                self._append(answer)
            except RecordingError as err:
                self._recorders[answer.camera] = None
                self.problems[answer.camera] = str(err)

    def _append(self, answer: Answer) -> None:
        image_hwc = answer.frame.image_hwc
        size_hw = (image_hwc.shape[0], image_hwc.shape[1])
        recorder = self._recorders.get(answer.camera)
        if recorder is not None and recorder.size_hw != size_hw:
            recorder.close()
            recorder = None
        if recorder is None:
            recorder = Recorder(self._new_path(answer.camera), size_hw)
            recorder.open()
            self._recorders[answer.camera] = recorder
        recorder.write(draw_detections(image_hwc, answer.detections, answer.class_names), answer.frame.at_s)

    def _close(self) -> None:
        for threads in self._threads.values():
            threads.shutdown()
        for camera, recorder in self._recorders.items():
            try:
                if recorder is not None:
                    recorder.close()
            except RecordingError as err:
                self.problems[camera] = str(err)

    def _new_path(self, camera: str) -> Path:
        """A file that is not there yet, by the camera's name; of two cameras never the same."""
        stem, number = self._stem(camera), 1
        while True:
            path = self._folder / (f"{stem}.mp4" if number == 1 else f"{stem}-{number}.mp4")
            if not path.exists() and not path.is_symlink():
                return path
            number += 1

    def _stem(self, camera: str) -> str:
        if camera not in self._stems:
            stem, number = file_stem(camera), 1
            while stem in self._stems.values():
                number += 1
                stem = f"{file_stem(camera)}_{number}"
            self._stems[camera] = stem
        return self._stems[camera]


def file_stem(camera: str) -> str:
    """A camera's name as the name of a file, short enough for one; other names may give the same."""
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in camera)
    return stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore")
