"""Detections from the service, numbers that stay from ByteTrack: one JSON line a frame with the box of each track.

`python examples/tracking/track.py line.mp4 --model best.onnx --video tracked.mp4`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import supervision as sv
from trackers import ByteTrackTracker

from engines.letterbox import Image
from framelane import CameraSpec, Client, Gap, Stream, StreamFrame, model_service
from serve_app.streams.open_source import open_source

SURE_SCORE = 0.5  # boxes that score less only prolong tracks and begin none: that is the idea of ByteTrack
KEPT_THIRTIETHS = 60  # of a second: for how long nobody may be seen on a track before it is given up


async def tracks(client: Client, camera: CameraSpec) -> AsyncIterator[tuple[StreamFrame, sv.Detections]]:
    """Frames of one camera with the boxes that belong to a track; `tracker_id` says to which.

    A frame without an answer is not one without people: it is told and left out, and the tracker, which is told each
    frame's time, predicts over it.
    """
    tracker = ByteTrackTracker(
        lost_track_buffer=KEPT_THIRTIETHS, track_activation_threshold=SURE_SCORE, high_conf_det_threshold=SURE_SCORE
    )
    async with Stream([camera], client=client) as stream:
        async for item in stream:
            if isinstance(item, Gap):
                print(json.dumps({"frame": item.first_number, "missing": item.num_frames, "why": item.reason}))
                continue
            tracked = tracker.update(item.result.to_supervision(), timestamp=item.frame.at_s)
            # supervision types ids as optional and what is picked as anything
            yield item.frame, tracked[tracked.tracker_id >= 0]  # type: ignore[operator,misc]


def numbers(tracked: sv.Detections) -> list[int]:
    """The number of each box's track."""
    return [] if tracked.tracker_id is None else [int(number) for number in tracked.tracker_id]


def line(frame: StreamFrame, tracked: sv.Detections) -> str:
    """A frame's JSON."""
    names = tracked.data.get("class_name", [])  # supervision's empty detections have none
    boxes = [
        {"id": number, "class_name": str(name), "box_xyxy": [round(side, 1) for side in box]}
        for number, name, box in zip(numbers(tracked), names, tracked.xyxy.tolist(), strict=True)
    ]
    return json.dumps({"frame": frame.number, "at_s": round(frame.at_s, 3), "tracks": boxes})


class Painter:
    """Draws boxes, paths and numbers; remembers paths, so it is for one camera."""

    def __init__(self) -> None:
        self._boxes, self._paths, self._labels = sv.BoxAnnotator(), sv.TraceAnnotator(), sv.LabelAnnotator()

    def drawn(self, image_hwc: Image, tracked: sv.Detections) -> Image:
        """A new picture."""
        drawn = self._paths.annotate(self._boxes.annotate(image_hwc.copy(), tracked), tracked)
        return self._labels.annotate(drawn, tracked, [f"#{number}" for number in numbers(tracked)])


async def run(client: Client, camera: CameraSpec, video: sv.VideoSink | None) -> None:
    """Print every frame's line as it comes, and add it to the video."""
    painter = Painter()
    async for frame, tracked in tracks(client, camera):
        print(line(frame, tracked), flush=True)
        if video is not None:
            video.write_frame(painter.drawn(frame.image_hwc, tracked))


def main() -> None:
    """Serve for this camera alone, and track on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a video, a folder of images, or a camera's address")
    parser.add_argument("--model", default="bundled:inspection-full", help="ONNX detector")
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many frames")
    parser.add_argument("--video", metavar="MP4", help="write what was tracked, at 10 frames a second")
    args = parser.parse_args()
    camera = CameraSpec(args.source, limit=args.limit)
    height, width = open_source(camera).first_size_hw()
    with contextlib.ExitStack() as at_end:
        client = at_end.enter_context(model_service(args.model, [(height, width)]))
        video = at_end.enter_context(sv.VideoSink(args.video, sv.VideoInfo(width, height, 10))) if args.video else None
        asyncio.run(run(client, camera, video))


if __name__ == "__main__":
    main()
