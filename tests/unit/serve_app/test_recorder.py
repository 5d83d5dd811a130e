"""Recordings that play, whatever the size, and that fail alone when the disk is full."""

from __future__ import annotations

import asyncio

import av
import numpy as np
import pytest
from stream_world import frame

from engines.detections import Detections
from serve_app.results import FrameResult
from serve_app.streams import recordings as module
from serve_app.streams.camera_spec import CameraListError
from serve_app.streams.recorder import Recorder, RecordingError
from serve_app.streams.recordings import MAX_BEHIND, Recordings, file_stem
from serve_app.streams.stream_values import Answer, Gap, GapCause, StreamFrame
from serve_app.verdicts import Outcome


def answer(camera="gate", at_s=0.0, size_hw=(64, 96)):
    """A grey frame on which nothing was found."""
    image_hwc = frame(128, size_hw)
    result = FrameResult("id", camera, size_hw, "normal", Outcome.FINISHED, Detections.none())
    return Answer(StreamFrame(camera, 0, at_s, image_hwc), result, 0.1)


def played(path):
    """The codec, the size and the times of a video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return container.streams.video[0].codec.name, (frames[0].height, frames[0].width), [f.time for f in frames]


def recorded(folder, *items, may_skip=False):
    """Record these, then close; the recordings."""

    async def scene():
        recordings = Recordings(folder)
        for item in items:
            await recordings.add(item, may_skip=may_skip)
        await recordings.close()
        return recordings

    return asyncio.run(scene())


@pytest.mark.parametrize("size_hw", [(64, 96), (63, 95), (2, 2), (1080, 1920)])
def test_frames_are_shown_at_their_own_times(tmp_path, size_hw):
    """H.264 that browsers play; odd sides get a border of one pixel. Times may be uneven, and stand still."""
    times = [0.0, 0.04, 0.5, 0.5, 3.0]
    recordings = recorded(tmp_path, *(answer(at_s=at_s, size_hw=size_hw) for at_s in times))
    codec, size, shown = played(tmp_path / "gate.mp4")
    assert recordings.problems == {}
    assert (codec, size) == ("h264", tuple(side + side % 2 for side in size_hw))
    assert shown == pytest.approx([0.0, 0.04, 0.5, 0.501, 3.0])


def test_another_size_begins_another_file_and_old_ones_stay(tmp_path):
    """A camera that was switched over, and a run before this one."""
    (tmp_path / "gate.mp4").write_text("of yesterday")
    recorded(tmp_path, answer(), answer(at_s=1.0, size_hw=(32, 32)), answer(at_s=2.0, size_hw=(32, 32)))
    assert (tmp_path / "gate.mp4").read_text() == "of yesterday"
    assert played(tmp_path / "gate-2.mp4")[1:] == ((64, 96), [0.0])
    assert played(tmp_path / "gate-3.mp4")[1:] == ((32, 32), [0.0, 1.0])


def test_what_was_written_plays_though_the_process_ends_in_the_middle(tmp_path):
    """No index at the end is needed: all but the last two seconds are there."""
    recorder = Recorder(tmp_path / "gate.mp4", (64, 96))
    recorder.open()
    for number in range(100):
        recorder.write(np.full((64, 96, 3), number, np.uint8), number / 10)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "gate.mp4").read_bytes())
    recorder.close()
    assert played(tmp_path / "copy.mp4")[2][-1] > 5.0


def test_a_full_disk_ends_one_recording_and_no_other(tmp_path, monkeypatch):
    """`/dev/full` is a disk without room; the error names the file and the cure, and comes once."""

    class OneFull(Recorder):
        def __init__(self, path, size_hw):
            if path.stem == "full":
                path.symlink_to("/dev/full")
            super().__init__(path, size_hw)

    monkeypatch.setattr(module, "Recorder", OneFull)
    noisy = np.random.default_rng(1)
    items = []
    for number in range(60):
        for camera in ("full", "good"):
            item = answer(camera, number / 10, (480, 640))
            item.frame.image_hwc[:] = noisy.integers(0, 255, (480, 640, 3), np.uint8)
            items.append(item)
    recordings = recorded(tmp_path, *items)
    assert set(recordings.problems) == {"full"}
    assert "full.mp4: cannot be written (no space left on device)" in recordings.problems["full"]
    assert len(played(tmp_path / "good.mp4")[2]) == 60


def test_a_recorder_that_cannot_be_opened_says_why(tmp_path):
    """A folder where the file should be."""
    (tmp_path / "gate.mp4").mkdir()
    recorder = Recorder(tmp_path / "gate.mp4", (64, 96))
    recorder.open()
    with pytest.raises(RecordingError, match=r"gate\.mp4: cannot be written \(is a directory\)"):
        recorder.write(frame(size_hw=(64, 96)), 0.0)


def test_a_camera_that_waits_for_nobody_is_recorded_with_frames_left_out(tmp_path):
    """They are counted, and its answers do not wait; gaps are not recorded."""

    async def scene():
        recordings = Recordings(tmp_path)
        for _ in range(module.MAX_WRITING):
            recordings._turns.acquire()
        for number in range(MAX_BEHIND + 3):
            await recordings.add(answer(at_s=float(number)), may_skip=True)
        await recordings.add(Gap("gate", 9, 1, GapCause.LOST, "x"), may_skip=True)
        recordings._turns.release()
        await recordings.close()
        return recordings

    recordings = asyncio.run(scene())
    assert recordings.num_skipped == {"gate": 3}
    assert len(played(tmp_path / "gate.mp4")[2]) == MAX_BEHIND


def test_cameras_of_like_names_have_files_of_their_own(tmp_path):
    """Slashes, other scripts, and names longer than file systems take."""
    recorded(tmp_path, answer("a/b"), answer("a_b"), answer("東 1"), answer("é" * 119 + "x"), answer(".."))
    assert {path.name for path in tmp_path.iterdir()} == {
        "a_b.mp4", "a_b_2.mp4", "東_1.mp4", "é" * 100 + ".mp4", "...mp4",
    }  # fmt: skip
    assert file_stem("a:b*c") == "a_b_c"


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(tmp_path, monkeypatch):
    """A file in its place, no extra."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(CameraListError, match="cannot be made"):
        Recordings(tmp_path / "file" / "folder")
    monkeypatch.setattr(module, "has_pyav", lambda: False)
    with pytest.raises(CameraListError, match=r"framelane\[video\]"):
        Recordings(tmp_path)
