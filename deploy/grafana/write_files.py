"""Writes dashboard.json and alerts.yaml beside itself, from the catalog of metrics.

Run it after a change there, or in panels.py or alerts.py: python deploy/grafana/write_files.py
"""

from __future__ import annotations

import json
from pathlib import Path

from alerts import alerts_yaml
from dashboard import dashboard

FOLDER = Path(__file__).parent


def contents() -> dict[str, str]:
    """The files by name, as they are to be."""
    return {
        "dashboard.json": json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n",
        "alerts.yaml": alerts_yaml(),
    }


if __name__ == "__main__":
    for name, text in contents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
