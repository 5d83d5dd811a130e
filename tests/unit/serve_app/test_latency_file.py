"""Latency tables as files: kept whole, refused elsewhere, and never half read."""

from __future__ import annotations

import json

import pytest
from serve_samples import HD, VGA

from serve_app.errors import InvalidPlanError
from serve_app.latency import Latency, LatencyKey, LatencyTable, Origin
from serve_app.latency_file import load_table, save_table

HERE = "Some CPU, 2 cores"
TABLE = LatencyTable(
    HERE,
    Origin.MEASURED,
    {
        LatencyKey("full", VGA, 1): Latency(0.0101, 0.0005, 20),
        LatencyKey("full", VGA, 2): Latency(0.0162, 0.0007, 20),
        LatencyKey("light", HD, 1): Latency(1.5, 0.25, 3),
    },
)
ENTRY = {"model": "full", "canvas_hw": [480, 640], "batch": 1, "run_ms": 10.1, "spread_ms": 0.5, "num_samples": 20}


def refused(path, **how) -> str:
    """The message with which a table is refused."""
    with pytest.raises(InvalidPlanError) as caught:
        load_table(path, machine=HERE, **how)
    return str(caught.value)


def content(**changes) -> str:
    """A sound file's text with one entry; `changes` replace fields of the file."""
    fields = {"version": 1, "machine": HERE, "origin": "measured", "entries": [ENTRY]}
    return json.dumps(fields | changes)


def entry(**changes) -> str:
    """A file whose only entry has these fields replaced; None takes a field out."""
    fields = {key: value for key, value in (ENTRY | changes).items() if value is not None}
    return content(entries=[fields])


def test_a_table_comes_back_as_it_was_saved(tmp_path):
    """Every field of every entry, in a folder that need not be there; nothing else is left in it."""
    path = tmp_path / "new" / "latency.json"
    save_table(path, TABLE)

    assert load_table(path, machine=HERE) == TABLE
    assert [each.name for each in path.parent.iterdir()] == ["latency.json"]


def test_saving_again_replaces_the_table(tmp_path):
    """Whole, not merged."""
    path = tmp_path / "latency.json"
    save_table(path, TABLE)
    smaller = LatencyTable("GPU", Origin.PUBLISHED, {LatencyKey("full", HD, 4): Latency(0.2, 0.0, 1)})
    save_table(path, smaller)

    assert load_table(path, machine=HERE) == smaller


def test_times_measured_on_another_machine_are_refused_unless_forced(tmp_path):
    """Both machines are named, and the two cures."""
    path = tmp_path / "latency.json"
    path.write_text(content(machine="Other CPU, 64 cores"), encoding="utf-8")

    assert refused(path) == (
        f"latency table {path}: got one measured on 'Other CPU, 64 cores', allowed is one of this machine, "
        "'Some CPU, 2 cores'; run framelane profile here, or take it all the same with --force"
    )
    assert load_table(path, machine=HERE, force=True).machine == "Other CPU, 64 cores"


@pytest.mark.parametrize("origin", ["published", "estimated", "assumed"])
def test_times_that_say_they_were_not_measured_are_taken_anywhere(tmp_path, origin):
    """They name a device, not the machine that uses them."""
    path = tmp_path / "latency.json"
    path.write_text(content(machine="RTX 4090", origin=origin), encoding="utf-8")

    assert load_table(path, machine=HERE).origin is Origin(origin)


def test_a_missing_table_says_how_to_make_one(tmp_path):
    """The system's own words, and the command."""
    path = tmp_path / "none.json"

    assert refused(path) == (f"latency table {path}: no such file or directory; make one with: framelane profile")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "7", '"text"', "{}", b"\xff\xfe\x00",
        content(entries={"a": 1}), content(entries=[7]), content(entries=None), content(origin="guessed"),
        content()[:-20], entry(run_ms=None), entry(model=None), entry(num_samples=None), entry(canvas_hw=[480]),
        entry(canvas_hw=[480, 640, 3]), entry(canvas_hw=7), entry(canvas_hw=[0, 640]), entry(canvas_hw=[480, -640]),
        entry(canvas_hw=["wide", 640]), entry(batch=0), entry(batch="two"), entry(batch=float("inf")),
        entry(run_ms=0), entry(run_ms=-1), entry(run_ms=float("nan")), entry(run_ms=float("inf")),
        entry(run_ms=10**400), entry(run_ms="fast"), entry(spread_ms=-1), entry(spread_ms=float("nan")),
    ],
    ids=lambda text: str(text)[-60:],
)  # fmt: skip
def test_a_damaged_table_is_refused(tmp_path, text):
    """Half a file, another kind of file, or numbers that cannot be: never another error, forced or not."""
    path = tmp_path / "latency.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    message = refused(path, force=True)
    assert refused(path) == message
    assert message.startswith(f"latency table {path}: got no sound table (")
    assert message.endswith("; make one with: framelane profile")


def test_a_table_of_another_version_is_refused(tmp_path):
    """What a later framelane writes may mean something else."""
    path = tmp_path / "latency.json"
    path.write_text(content(version=2), encoding="utf-8")

    assert refused(path).startswith(f"latency table {path}: ")


def test_a_table_without_entries_is_refused(tmp_path):
    """It would silently be the same as none."""
    path = tmp_path / "latency.json"
    path.write_text(content(entries=[]), encoding="utf-8")

    assert refused(path) == (f"latency table {path}: got no entries, allowed is one or more; run framelane profile")
