"""A gate on a line: a part passes only if its picture was answered in time, shows a part, and shows no defect.

Whatever else happens rejects it. `python examples/defect_gate/gate.py` draws its own parts; give a folder for yours.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engines.image_file import IMAGE_SUFFIXES, read_image
from engines.letterbox import Image
from framelane import Client, model_service
from framelane_inspection.scenes import draw_scene

# A part's name, and how to take its picture; taking it may fail, which rejects that part.
Part = tuple[str, Callable[[], Image]]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a part passes, why, and after how many seconds that was known."""

    part: str
    passes: bool
    reason: str
    took_s: float


async def decide(client: Client, part: Part, deadline_s: float) -> Decision:
    """Look at one part. Never raises, and waits no longer than the deadline: then the part is at the gate."""
    began_s = time.monotonic()
    passes = False
    name, take = part
    try:
        # The service drops what cannot be in time; our own clock is for one that says nothing at all.
        asked = client.submit_async(take(), camera="gate", priority="critical", slo_s=deadline_s)
        found = Counter((await asyncio.wait_for(asked, deadline_s)).unless_failed().class_names)
        defects = ", ".join(f"{count} {what}" for what, count in sorted(found.items()) if what != "part")
        passes = not defects and found["part"] > 0
        reason = defects or ("sound" if passes else "no part in view")
    except asyncio.TimeoutError:
        reason = f"no answer within {deadline_s:g} s"
    except Exception as err:  # refused, late, no picture, no service, a fault of ours: nothing may let a part pass
        reason = f"{type(err).__name__}: {err}"
    return Decision(name, passes, reason, time.monotonic() - began_s)


async def run_gate(client: Client, parts: Sequence[Part], deadline_s: float, every_s: float) -> list[Decision]:
    """Take a part every `every_s` seconds, whether the one before is decided or not; tells decisions as they come."""

    async def one(number: int, part: Part) -> Decision:
        await asyncio.sleep(number * every_s)
        decision = await decide(client, part, deadline_s)
        verdict = "pass  " if decision.passes else "REJECT"
        print(f"{verdict}  {decision.part:12} {decision.took_s * 1000:5.0f} ms  {decision.reason}", flush=True)
        return decision

    return await asyncio.gather(*(one(number, part) for number, part in enumerate(parts)))


def parts_of(folder: Path | None) -> list[Part]:
    """A part a picture of the folder, by name; without one 24 drawn parts, with and without defects."""
    if folder is None:
        return [(f"drawn-{seed}", partial(_drawn, seed)) for seed in range(24)]
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [(path.name, partial(read_image, path)) for path in paths]


def _drawn(seed: int) -> Image:
    return draw_scene((192, 256), seed).image_hwc


def main() -> None:
    """Serve for this line alone, and run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="?", type=Path, help="a folder with a picture a part; default: drawn parts")
    parser.add_argument("--model", default="bundled:inspection-full", help="all that it knows but 'part' is a defect")
    parser.add_argument("--deadline", type=float, default=0.5, metavar="S", help="seconds from picture to gate")
    parser.add_argument("--every", type=float, default=0.4, metavar="S", help="seconds between two parts")
    args = parser.parse_args()
    parts = parts_of(args.pictures)
    height, width, _ = parts[0][1]().shape
    with model_service(args.model, [(height, width)]) as client:
        decisions = asyncio.run(run_gate(client, parts, args.deadline, args.every))
    slowest_ms = max(decision.took_s for decision in decisions) * 1000
    print(f"{sum(d.passes for d in decisions)} of {len(parts)} parts passed; slowest decision {slowest_ms:.0f} ms")


if __name__ == "__main__":
    main()
