"""examples/defect_gate: sound parts pass on a real service, bad ones and bad files do not."""

from __future__ import annotations

import re

import cv2
from example_run import run_example

from framelane_inspection.scenes import PART, draw_scene

SIZE_HW = (192, 256)
# The model finds what is on these; of forty drawn parts with a defect it lets one pass, see the example's README.
SOUND, BAD = (12, 19, 32, 37), (0, 1, 2, 3, 5, 7)


def test_sound_parts_pass_and_nothing_else(tmp_path):
    """Drawn parts by their own truth, and a picture that broke off; with a deadline that a busy machine keeps."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for seed in (*SOUND, *BAD):
        scene = draw_scene(SIZE_HW, seed)
        assert (scene.class_ids == PART).all() == (seed in SOUND)
        cv2.imwrite(str(folder / f"{seed}.png"), scene.image_hwc)
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:500])
    printed = run_example(
        "defect_gate/gate.py", folder, "--deadline", 60, "--every", "0.1", folder=tmp_path
    )  # fmt: skip
    decided = dict(re.findall(r"^(?:pass|REJECT) +(\S+) +\d+ ms +(.*)$", printed, re.MULTILINE))
    passed = set(re.findall(r"^pass +(\S+)", printed, re.MULTILINE))
    assert passed == {f"{seed}.png" for seed in SOUND}
    assert len(decided) == len(SOUND) + len(BAD) + 1
    assert "truncated" in decided["cut.png"]
    assert f"{len(SOUND)} of {len(decided)} parts passed" in printed
