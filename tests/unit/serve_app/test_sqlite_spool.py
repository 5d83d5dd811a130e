"""The spool in SQLite: all that a spool promises, and what only files can suffer."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("spool_promises")
from spool_promises import *  # noqa: E402, F403 - the whole suite, to be collected here
from spool_promises import NOW_S, keep  # noqa: E402
from spool_samples import TTL_S, end_of, ids_of, mark_at, new_frame  # noqa: E402

from serve_app.errors import ServiceUnavailableError, SpoolFullError  # noqa: E402
from serve_app.spool import sqlite_file  # noqa: E402
from serve_app.spool.record import record_from  # noqa: E402
from serve_app.spool.spool import GONE_PER_TTL  # noqa: E402
from serve_app.spool.sqlite_file import FILE_NAME, PAGE_BYTES  # noqa: E402
from serve_app.spool.sqlite_spool import SqliteSpool  # noqa: E402
from serve_app.tickets import TicketState  # noqa: E402

PLENTY_BYTES = 2**40
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from spool_samples import end_of, new_frame
from serve_app.spool.sqlite_spool import SqliteSpool
store = SqliteSpool(Path(sys.argv[1]), max_bytes=2**40, result_ttl_s=100).open()
for number in range(10**9):
    frames = [new_frame(f"{number}-{each}", num_bytes=150_000) for each in range(3)]
    assert store.keep(frames, float(number)) == [None] * 3
    print("kept", *(frame.frame_id for frame in frames), flush=True)
    if number % 2:
        assert store.finish([end_of(f"{number}-0")], float(number)) == [True]
        print("done", f"{number}-0", flush=True)
"""


class SqliteCase:
    """Stores over one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.opened = []

    def open(self, *, max_bytes=PLENTY_BYTES, **bounds):
        """A process's store."""
        bounds = {"free_bytes": lambda _: PLENTY_BYTES, "ballast_bytes": 300_000} | bounds
        store = SqliteSpool(self.folder, max_bytes=max_bytes, result_ttl_s=TTL_S, **bounds).open()
        self.opened.append(store)
        return store

    def restart(self, store):
        """The next process's store."""
        store.close()
        return self.open()


@pytest.fixture
def case(tmp_path):
    """A folder of its own."""
    opened = SqliteCase(tmp_path / "spool")
    yield opened
    for store in opened.opened:
        store.close()


def write_at(path, offset, data):
    """Damage a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_folder_has_one_process(case):
    """A second one is told so, and gets the folder when the first has gone."""
    store = case.open()
    with pytest.raises(ServiceUnavailableError, match=r"another process feeds its frames.*spool\.folder"):
        case.open()
    store.close()
    case.open()


def test_a_closed_store_says_so(case):
    """Whoever still asks it."""
    store = case.open()
    store.close()
    store.close()
    with pytest.raises(ServiceUnavailableError, match="is closed"):
        store.take(1)


def test_a_folder_that_cannot_be_made_is_told(case):
    """With what to change in the plan."""
    case.folder.write_text("a file")
    with pytest.raises(ServiceUnavailableError, match=r"cannot be written.*spool\.folder"):
        case.open()


@pytest.mark.parametrize("num_lines", [3, 20, 47])
def test_a_process_that_is_killed_while_it_writes_loses_nothing_that_it_said(case, num_lines):
    """SIGKILL in the middle: what it had answered is there, whole and once; of what it had not, nothing in halves."""
    command = [sys.executable, "-c", WRITER, str(case.folder), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        said = [writer.stdout.readline().split() for _ in range(num_lines)]
        os.kill(writer.pid, signal.SIGKILL)
        said += [line.split() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    kept = {frame_id for line in said if line[0] == "kept" for frame_id in line[1:]}
    done = {frame_id for line in said if line[0] == "done" for frame_id in line[1:]}

    store = case.open()

    taken = ids_of(store.take(10**6))
    assert len(taken) == len(set(taken))
    # One call more may have been written, whose answer nobody has seen.
    assert kept - done >= set(taken) - {f"{len(said)}-0"} - _next_of(kept)
    assert set(taken) >= kept - done - _next_done(kept, done)
    for frame_id in taken:
        assert record_from(store.load(frame_id)).frame_id == frame_id
    for frame_id in done:
        assert store.answer(frame_id, NOW_S * 0).state is TicketState.DONE


def _next_of(kept):
    """The frames of the call after the last that was answered."""
    number = 1 + max(int(frame_id.partition("-")[0]) for frame_id in kept)
    return {f"{number}-{each}" for each in range(3)}


def _next_done(kept, done):
    """The frame whose result may have been written without an answer."""
    number = max(int(frame_id.partition("-")[0]) for frame_id in kept)
    return {f"{number}-0"} - done if number % 2 else set()


def test_a_log_that_breaks_off_gives_what_is_whole(case, tmp_path):
    """A power cut: the log beside the file ends anywhere. Each group of frames is there whole or not at all."""
    store = case.open()
    for number in range(5):
        keep(store, f"{number}-a", f"{number}-b")
    log = case.folder / f"{FILE_NAME}-wal"
    whole = log.read_bytes()
    assert len(whole) > 5 * PAGE_BYTES
    for cut in range(len(whole), 0, -PAGE_BYTES * 3 // 2):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        shutil.copy(case.folder / FILE_NAME, folder)
        (folder / log.name).write_bytes(whole[:cut])
        later = SqliteCase(folder).open()
        taken = ids_of(later.take(100))
        later.close()
        assert taken == [f"{number}-{each}" for number in range(len(taken) // 2) for each in "ab"]
        assert len(taken) == 10 or cut < len(whole)


@pytest.mark.parametrize("damage", ["header", "cut to nothing sound", "empty pages"])
def test_a_damaged_file_is_put_away_and_reported(case, damage, caplog):
    """The next process begins a new file at once; the old one stays, named by the time, until people remove it."""
    store = case.open()
    keep(store, "f")
    store.close()
    path = case.folder / FILE_NAME
    if damage == "header":
        write_at(path, 0, b"no database here")
    elif damage == "empty pages":
        write_at(path, PAGE_BYTES, bytes(path.stat().st_size - PAGE_BYTES))
    else:
        path.write_bytes(b"SQLite format 3\x00" + bytes(100))

    store = case.open()

    (put_away,) = case.folder.glob(f"{FILE_NAME}.damaged-*Z")
    assert str(put_away) in store.usage().warnings[0]
    assert "is damaged" in caplog.text
    assert store.answer("f", NOW_S).state is TicketState.UNKNOWN
    keep(store, "g")
    store = case.restart(store)
    assert ids_of(store.take(10)) == ["g"]
    assert len(store.usage().warnings) == 1
    put_away.unlink()
    assert store.usage().warnings == ()


def test_of_a_damaged_file_all_that_can_be_read_is_saved(case):
    """One page of many is overwritten: the frames and results of the others are fed and answered, in order."""
    store = case.open()
    frame_ids = [f"f{number:03}" for number in range(60)]
    store.keep([new_frame(frame_id, num_bytes=20_000) for frame_id in frame_ids], NOW_S)
    store.finish([end_of(frame_id) for frame_id in frame_ids[:10]], NOW_S)
    store.close()
    path = case.folder / FILE_NAME
    # The leaf pages of `pending` hold the beginnings of its rows, whose records go on elsewhere.
    content = path.read_bytes()
    page = content.index(b"f030gate") // PAGE_BYTES
    write_at(path, page * PAGE_BYTES, b"\xff" * PAGE_BYTES)

    store = case.open()

    taken = ids_of(store.take(100))
    assert 20 < len(taken) < 50
    assert taken == sorted(set(taken))
    assert set(taken) <= set(frame_ids[10:])
    for frame_id in taken:
        assert store.load(frame_id) == new_frame(frame_id, num_bytes=20_000).record
    assert {store.answer(frame_id, NOW_S).state for frame_id in frame_ids[:10]} == {TicketState.DONE}
    page = store.results_after("gate", 0, 100, NOW_S)
    assert (ids_of(page.results), page.num_dropped) == (frame_ids[:10], 0)
    keep(store, "new")


def test_a_file_that_is_damaged_in_service_is_put_away_there(case, monkeypatch):
    """As one that is too large to be checked at the start: the call that finds out goes on with a new file."""
    monkeypatch.setattr(sqlite_file, "CHECKED_BYTES", 0)
    store = case.open()
    store.keep([new_frame(f"f{number}", num_bytes=30_000) for number in range(200)], NOW_S)
    store.close()
    path = case.folder / FILE_NAME
    content = path.read_bytes()
    page = content.index(b"f150gate") // PAGE_BYTES
    write_at(path, page * PAGE_BYTES, b"\xff" * PAGE_BYTES)
    store = case.open()
    assert store.usage().warnings == ()

    taken = []
    while frames := store.take(50):
        taken += ids_of(frames)

    assert len(list(case.folder.glob(f"{FILE_NAME}.damaged-*Z"))) == 1
    assert len(set(taken)) > 100
    keep(store, "new")
    assert ids_of(store.take(50)) == ["new"]


def test_a_file_of_a_later_version_is_left_alone(case):
    """It is sound, but not for this program."""
    case.open().close()
    with sqlite3.connect(case.folder / FILE_NAME) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ServiceUnavailableError, match="got version 99, allowed is 1"):
        case.open()
    assert [path.name for path in case.folder.glob("*damaged*")] == []


def test_sqlite_that_finds_no_room_refuses_the_frame_alone(case):
    """`SQLITE_FULL` in the middle of a group: those that fit are kept, the others told; results are still written."""
    store = case.open()
    keep(store, "early")
    num_pages = store._home.database.execute("PRAGMA page_count").fetchone()[0]
    store._home.database.execute(f"PRAGMA max_page_count = {num_pages + 20}")

    told = store.keep(
        [new_frame("large", num_bytes=500_000), new_frame("small"), new_frame("larger", num_bytes=900_000)], NOW_S
    )

    assert [type(answer) for answer in told] == [SpoolFullError, type(None), SpoolFullError]
    assert "disk of" in told[0].message
    assert told[0].retry_after_s > 0
    assert ids_of(store.take(10)) == ["early", "small"]
    assert store.finish([end_of("early")], NOW_S) == [True]


def test_results_that_find_no_room_are_kept_back_by_an_error(case):
    """The feeder tries again later; the frame is still pending, and nothing is half written."""
    store = case.open()
    keep(store, "f")
    pages = store._home.database.execute("PRAGMA page_count").fetchone()[0]
    store._home.database.execute(f"PRAGMA max_page_count = {pages}")
    huge = end_of("f")
    huge = type(huge)("f", huge.outcome, bytes(10 * PAGE_BYTES))
    with pytest.raises(ServiceUnavailableError, match="nothing can be written"):
        store.finish([huge], NOW_S)
    assert (store.usage().num_pending, store.usage().num_done) == (1, 0)
    assert store.keep([new_frame("g")], NOW_S) == [None]
    store._home.database.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert store.finish([huge], NOW_S) == [True]


def test_a_disk_that_is_nearly_full_refuses_frames_before_it_is(case):
    """So that results of what lies there still find room; when others made room, frames are taken again."""
    free = {"bytes": 10_000_000}
    store = case.open(reserved_bytes=9_000_000, free_bytes=lambda _: free["bytes"])
    (kept, refused) = store.keep([new_frame("a", num_bytes=300_000), new_frame("b", num_bytes=300_000)], NOW_S)
    assert kept is None
    assert isinstance(refused, SpoolFullError)
    assert "make room on that disk" in refused.message
    free["bytes"] = 20_000_000
    keep(store, "b")


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 3 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=20)


def test_a_disk_that_is_really_full(tiny_disk, case):
    """ENOSPC from the kernel: clear refusals, what was kept stays whole, and others' files are no reason to break."""
    case.folder = tiny_disk / "spool"
    store = case.open(free_bytes=lambda _: PLENTY_BYTES)  # so that SQLite itself meets the end of the disk
    told = []
    for number in range(40):
        told += store.keep([new_frame(f"f{number}", num_bytes=100_000)], NOW_S)
    kept = [f"f{number}" for number, answer in enumerate(told) if answer is None]
    assert 3 <= len(kept) <= 30
    assert {type(answer) for answer in told} == {type(None), SpoolFullError}

    (case.folder / "others").write_bytes(bytes(shutil.disk_usage(case.folder).free))
    (refused,) = store.keep([new_frame("more", num_bytes=100_000)], NOW_S)
    assert isinstance(refused, SpoolFullError)
    store.close()
    store = case.open(free_bytes=lambda _: PLENTY_BYTES)
    assert ids_of(store.take(100)) == kept
    for frame_id in kept:
        assert store.load(frame_id) == new_frame(frame_id, num_bytes=100_000).record
    for frame_id in kept[:-1]:
        assert store.finish([end_of(frame_id)], NOW_S) == [True]
    (case.folder / "others").unlink()
    store.tidy(mark_at(NOW_S))
    assert store.keep([new_frame("later", num_bytes=50_000)], NOW_S) == [None]


def test_the_file_gives_its_room_back(case):
    """Not only to later frames: the disk gets back what a busy hour took."""
    store = case.open()
    store.keep([new_frame(f"f{number}", num_bytes=200_000) for number in range(100)], NOW_S)
    store.finish([end_of(f"f{number}") for number in range(100)], NOW_S)
    store.tidy(mark_at(NOW_S))
    store = case.restart(store)
    assert (case.folder / FILE_NAME).stat().st_size < 2_000_000


def test_what_is_gone_is_forgotten_in_the_end(case):
    """No table grows for ever: not of results, not of tickets, not of cameras."""
    store = case.open()
    for number in range(20):
        keep(store, f"f{number}", camera=f"camera-{number}")
        store.finish([end_of(f"f{number}", f"camera-{number}")], NOW_S)
    cursor = store.results_after("camera-3", 0, 10, NOW_S).cursor
    store.tidy(mark_at(NOW_S + TTL_S))
    assert store.answer("f3", NOW_S + TTL_S).state is TicketState.EXPIRED
    store.tidy(mark_at(NOW_S + GONE_PER_TTL * TTL_S))
    assert store.answer("f3", NOW_S + GONE_PER_TTL * TTL_S).state is TicketState.UNKNOWN
    tables = [
        name
        for (name,) in store._home.database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        if name not in ("facts", "sqlite_sequence")
    ]
    assert len(tables) == 5
    counts = {
        name: store._home.database.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0]  # noqa: S608 - names from above
        for name in tables
    }
    assert counts == dict.fromkeys(tables, 0)

    later_s = NOW_S + 1000
    keep(store, "new", camera="camera-3", now_s=later_s)
    store.finish([end_of("new", "camera-3")], later_s)
    page = store.results_after("camera-3", cursor, 10, later_s)
    assert (ids_of(page.results), page.num_dropped) == (["new"], None)
