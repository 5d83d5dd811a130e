"""The commands of docs/http.md run, in its order, against a service of their own; and keys do what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from service_world import Command, free_ports

from framelane_inspection.scenes import draw_scene

pytestmark = [pytest.mark.docs, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLAN = (
    'models: {full: "bundled:inspection-light"}\nbuckets: {small: {canvases: [[480, 640]]}}\n'
    "slo_s: {critical: 60, normal: 60}\n"
)


def commands():
    """Of the page's blocks but the one about HAProxy, whose switch is Ray's."""
    lines = "".join(block for block in BLOCK.findall(PAGE.read_text()) if "HA_PROXY" not in block)
    return [line.partition(" #")[0].strip() for line in lines.replace("\\\n", " ").splitlines()]


@pytest.fixture
def world(tmp_path):
    """A plan, a photo, ports of its own, and the environment of the command."""
    cv2.imwrite(str(tmp_path / "photo.jpg"), draw_scene((480, 640), seed=7).image_hwc)
    (tmp_path / "plan.yaml").write_text(PLAN)
    port, critical_port = free_ports(2)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "FRAMELANE_STATE_DIR": str(tmp_path / "state")}

    def run(command):
        done = subprocess.run(
            ["bash", "-ec", command.replace("8000", str(port)).replace("8001", str(critical_port))],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=170, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    yield run, port
    run("framelane down || true")


def curl(path, key="", more="", port=8000):
    """A command that prints the status behind the body."""
    return f"curl -s -w '\\n%{{http_code}}' {more} -H 'X-API-Key: {key}' 'http://127.0.0.1:{port}{path}'"


def test_the_commands_of_the_page_run(world):
    """And print answers; then keys: the plan names the file that the page's commands made."""
    run, _ = world
    said = {}
    for command in commands():
        status, out, err = run(command)
        assert status == 0, (command, out, err)
        said[command] = (out, err)
    answers = [json.loads(out) for command, (out, _) in said.items() if command.startswith("curl")]
    detect, several, ticket, page, ready, critical = answers
    assert (detect["camera"], detect["outcome"], detect["priority"]) == ("gate-1", "finished", "critical")
    assert (critical["outcome"], critical["detections"]) == ("finished", detect["detections"])
    assert [frame["status"] for frame in several["frames"]] == [200, 200]
    assert [each["frame_id"] for each in page["results"]] == [ticket["ticket_id"]]
    assert ready == {"is_ready": True, "reasons": []}

    gate, belt = (out.strip() for command, (out, _) in said.items() if "framelane key" in command)
    section = "http: {enabled: true, port: 8000, critical_port: 8001, keys: keys.yaml}"
    assert run(f"sed -i 's/^http: .*/{section}/' plan.yaml; framelane up plan.yaml")[0] == 0
    image = "--data-binary @photo.jpg -H 'Content-Type: image/jpeg'"
    statuses = {
        "no key": curl("/v1/detect", "", image),
        "gate": curl("/v1/detect?priority=critical", gate, image),
        "belt, critical": curl("/v1/detect?priority=critical&camera=belt-1", belt, image),
        "belt, another camera": curl("/v1/detect?camera=gate-1", belt, image),
        "belt": curl("/v1/detect?camera=belt-1", belt, image),
        "gate, its port": curl("/v1/detect?priority=critical", gate, image, 8001),
        "belt, that port": curl("/v1/detect?camera=belt-1", belt, image, 8001),
        "status without": curl("/v1/status"),
        "ready without": curl("/v1/health/ready"),
    }
    got = {what: run(command)[1].strip().splitlines()[-1] for what, command in statuses.items()}
    assert got == {
        "no key": "401", "gate": "200", "belt, critical": "403", "belt, another camera": "403", "belt": "200",
        "gate, its port": "200", "belt, that port": "403", "status without": "401", "ready without": "200",
    }  # fmt: skip
    logs = run("cat state/service.log; cat /tmp/ray/session_latest/logs/serve/*http* /dev/null")[1]
    assert gate not in logs
    assert belt not in logs


def test_what_keeps_http_from_being_served_is_told_before_anything_starts(world, tmp_path):
    """No key for the network; a port without --http."""
    del world
    framelane = Command(tmp_path)
    refused = framelane("up", "plan.yaml", "--http", "--http-host", "0.0.0.0")  # noqa: S104
    assert refused.returncode == 1
    assert "without API keys" in refused.stderr
    assert "without --http" in framelane("up", "plan.yaml", "--http-port", "9999").stderr
