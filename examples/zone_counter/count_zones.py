"""How much is in each zone of a camera's view over time: one JSON line an interval, for each zone mean and most.

`python examples/zone_counter/count_zones.py line.mp4 --zone "left 0,0 320,0 320,480 0,480" --every 1`
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import supervision as sv

from framelane import CameraSpec, Client, FrameResult, Gap, Stream, model_service
from serve_app.streams.open_source import open_source

# By name. A box is where the middle of its lower edge stands, as people and parts do.
Zones = dict[str, sv.PolygonZone]


@dataclass(slots=True)
class Interval:
    """What was counted from `start_s` on: a number a frame that was answered, and how many frames were not."""

    start_s: float
    counts: dict[str, list[int]] = field(default_factory=dict)
    num_missing: int = 0

    def line(self) -> dict[str, Any]:
        """JSON-ready. Without a single answered frame nothing is known, which is not nought."""
        zones = {name: {"mean": round(sum(n) / len(n), 2), "most": max(n)} for name, n in self.counts.items()}
        num_frames = len(next(iter(self.counts.values()), []))
        return {"at_s": self.start_s, "frames": num_frames, "missing": self.num_missing, "zones": zones}


def count(result: FrameResult, zones: Zones, class_name: str | None) -> dict[str, int]:
    """The number of boxes in each zone on one frame; None: of every class."""
    boxes = result[[class_name in {None, name} for name in result.class_names]].to_supervision()
    return {name: int(zone.trigger(boxes).sum()) for name, zone in zones.items()}


async def intervals(
    client: Client, camera: CameraSpec, zones: Zones, *, class_name: str | None, every_s: float
) -> AsyncIterator[Interval]:
    """Counts of one camera, an interval of its own clock at a time."""
    now = Interval(0.0)
    async with Stream([camera], client=client) as stream:
        async for item in stream:
            if isinstance(item, Gap):
                now.num_missing += item.num_frames
                continue
            start_s = item.frame.at_s // every_s * every_s
            if start_s > now.start_s:
                yield now
                now = Interval(start_s)
            for name, number in count(item.result, zones, class_name).items():
                now.counts.setdefault(name, []).append(number)
    yield now


def zone(text: str) -> tuple[str, sv.PolygonZone]:
    """A named zone from `NAME X,Y X,Y X,Y …`."""
    name, *corners = text.split()
    polygon = np.array([[int(side) for side in corner.split(",")] for corner in corners])
    if len(corners) < 3 or polygon.shape[1:] != (2,):
        raise ValueError(text)
    return name, sv.PolygonZone(polygon)


async def tell(counted: AsyncIterator[Interval]) -> None:
    """Print each interval's line as it ends."""
    async for interval in counted:
        print(json.dumps(interval.line()), flush=True)


def main() -> None:
    """Serve for this camera alone, and count on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a video, a folder of images, or a camera's address")
    parser.add_argument("--model", default="bundled:inspection-full", help="ONNX detector")
    parser.add_argument("--zone", type=zone, action="append", required=True, metavar="'NAME X,Y X,Y X,Y …'")
    parser.add_argument("--class-name", metavar="NAME", help="what is counted; default: everything")
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds of an interval")
    args = parser.parse_args()
    camera = CameraSpec(args.source)
    with model_service(args.model, [open_source(camera).first_size_hw()]) as client:
        counted = intervals(client, camera, dict(args.zone), class_name=args.class_name, every_s=args.every)
        asyncio.run(tell(counted))


if __name__ == "__main__":
    main()
