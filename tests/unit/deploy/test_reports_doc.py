"""docs/reports.md says of the alerts what the rules say."""

from __future__ import annotations

import re
from pathlib import Path

from alerts import ALERTS

DOC = (Path(__file__).parents[3] / "docs" / "reports.md").read_text(encoding="utf-8")


def test_the_table_has_every_alert_with_its_severity():
    """And no other."""
    rows = re.findall(r"^\| (`Framelane.*?) \| (\w+) \|", DOC, re.MULTILINE)
    told = {name: severity for names, severity in rows for name in re.findall(r"Framelane\w+", names)}

    assert told == {alert.name: alert.severity for alert in ALERTS}


def test_its_picture_is_small():
    """It travels with every checkout."""
    for name in re.findall(r"\]\((images/[^)]+)\)", DOC):
        assert (Path(__file__).parents[3] / "docs" / name).stat().st_size < 300_000
