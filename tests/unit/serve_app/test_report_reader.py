"""Frame logs as they are found: torn, foreign, damaged."""

from __future__ import annotations

import json

import pytest
from report_samples import RECORD, figures_of, record, unfinished, write

from serve_app.errors import FramelaneError
from serve_app.report.log_figures import read_logs
from serve_app.report.log_reader import MAX_LINE_BYTES, LogFile

LINE = json.dumps(RECORD) + "\n"


def read(path):
    """All of a file: the file with what was noted, and the records."""
    file = LogFile(path)
    return file, list(file.lines())


def test_a_torn_last_line_is_named_and_left_out(tmp_path):
    """Its writer was killed, or is still writing."""
    file, lines = read(write(tmp_path / "a.jsonl", LINE, LINE[:200]))

    assert (len(lines), file.is_torn, file.num_foreign) == (1, True, 0)


def test_a_last_line_without_a_break_counts_if_it_is_whole(tmp_path):
    """Editors leave the break out."""
    file, lines = read(write(tmp_path / "a.jsonl", LINE, LINE.rstrip()))

    assert (len(lines), file.is_torn) == (2, False)


def test_foreign_lines_are_counted_by_kind_and_named(tmp_path):
    """With their numbers; the records around them count."""
    file, lines = read(
        write(
            tmp_path / "a.jsonl",
            "hello\n",
            LINE,
            "\n",
            '{"a": 1}\n',
            "[1]\n",
            record(infer_ms="fast"),
            LINE[:50] + "\n",
        )
    )

    assert [line.number for line in lines] == [2]
    assert file.num_foreign == 5
    assert dict(file.kinds) == {"no JSON object": 3, "no record of a frame": 1, "a damaged record": 1}
    assert file.foreign[0].startswith("line 1: no JSON object")
    assert "infer_ms: got 'fast'" in file.foreign[3]


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "lost"}, {"verdict": "maybe"}, {"source_hw": [480]}, {"source_hw": [-1, 2]}, {"canvas_hw": "x"},
        {"at_s": "noon"}, {"total_ms": True}, {"total_ms": 1e308}, {"slo_s": {}}, {"canvas_hw": [10**9, 10**9]},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_no_router_writes_makes_a_line_foreign(tmp_path, changes):
    """It may be damaged in other places as well."""
    file, lines = read(write(tmp_path / "a.jsonl", record(**changes), LINE))

    assert (len(lines), file.num_foreign) == (1, 1)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_makes_a_line_foreign(tmp_path, number):
    """JSON of Python's has them."""
    file, lines = read(write(tmp_path / "a.jsonl", LINE.replace("100.0", number, 1), LINE))

    assert (len(lines), file.num_foreign) == (1, 1)


def test_a_line_without_an_end_fills_no_memory(tmp_path):
    """A core dump is no log; what follows it is read."""
    file, lines = read(write(tmp_path / "a.jsonl", "x" * (3 * MAX_LINE_BYTES + 5) + "\n", LINE))

    assert (len(lines), file.num_foreign) == (1, 1)
    assert file.num_bytes == (tmp_path / "a.jsonl").stat().st_size
    assert "longer than any record" in file.foreign[0]


def test_bytes_that_are_no_text_and_nesting_without_end_are_foreign(tmp_path):
    """Neither ends the report."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xff\xfe\x00\n" + b'{"outcome":' + b"[" * 100_000 + b"\n" + LINE.encode())
    file, lines = read(path)

    assert (len(lines), file.num_foreign) == (1, 2)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    """Windows' editors write one."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINE.encode())

    assert len(read(path)[1]) == 1


@pytest.mark.parametrize(
    ("content", "said"), [("", "(empty)"), ("\n\n", "(empty)"), ("hello\n", "line 1: no JSON object")]
)
def test_a_log_without_records_is_an_error_that_names_it(tmp_path, content, said):
    """And says what it was instead."""
    with pytest.raises(FramelaneError) as told:
        figures_of(tmp_path, content)

    assert "frames.jsonl" in str(told.value)
    assert said in str(told.value)
    assert "frame_log" in str(told.value)


def test_a_log_that_is_not_there_is_an_error_that_names_it(tmp_path):
    """With the cure."""
    with pytest.raises(FramelaneError, match=r"nowhere\.jsonl: no such file"):
        read_logs([tmp_path / "nowhere.jsonl"])


def test_what_a_refused_client_said_counts_as_a_refused_frame(tmp_path):
    """Its priority is none and it has no size; it was a frame all the same, without a deadline that counts."""
    figures = figures_of(
        tmp_path, record(),
        unfinished("rejected", priority="urgent", source_hw=None, verdict=None, verdict_reason=None, slo_s=None),
    )  # fmt: skip

    assert figures.classes() == ("normal", "other")
    assert figures.whole().counts.in_time_fraction == 1.0
