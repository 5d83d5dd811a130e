"""docs/python.md runs as it stands, top to bottom, in one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from framelane_inspection.scenes import draw_scene

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_runs_and_tells_what_it_promises(tmp_path):
    """With the files that it speaks of: a photo, and a folder in which one picture broke off."""
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "photo.jpg"), draw_scene((480, 640), seed=3).image_hwc)
    cv2.imwrite(str(tmp_path / "pictures" / "a.png"), draw_scene((256, 320), seed=4).image_hwc)
    (tmp_path / "pictures" / "b.png").write_bytes((tmp_path / "pictures" / "a.png").read_bytes()[:300])
    program = "\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    environment = os.environ | {"FRAMELANE_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^pictures/a\.png \d+ boxes on canvas 256x320$", done.stdout, re.MULTILINE)
    assert "b.png: got a truncated file" in done.stdout
    assert re.search(r"^finished 0?\.?\d+", done.stdout, re.MULTILINE)
    assert re.search(r"^part 0\.\d\d at \d+, \d+$", done.stdout, re.MULTILINE)
    assert cv2.imread(str(tmp_path / "boxes.png")).shape == (480, 640, 3)
