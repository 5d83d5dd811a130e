"""Which router owns a camera: the same answer everywhere, fair shares, and nothing moves that need not."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.camera_owner import owner, owning_routers
from serve_app.results import RouterReport

CAMERAS = [f"line-{line}/camera-{number}" for line in range(40) for number in range(50)]
NAMES = st.text(min_size=1, max_size=12)
ROUTERS = st.lists(NAMES, min_size=1, max_size=8, unique=True)


def owners(routers):
    """The owner of each camera."""
    return {camera: owner(camera, routers) for camera in CAMERAS}


@given(camera=NAMES, routers=ROUTERS, data=st.data())
def test_the_order_in_which_routers_are_known_does_not_count(camera, routers, data):
    """Clients and routers hear of each other in any order."""
    shuffled = data.draw(st.permutations(routers))

    assert owner(camera, routers) == owner(camera, shuffled) == owner(camera, set(routers))
    assert owner(camera, routers) in routers


@given(camera=NAMES, routers=ROUTERS, new=NAMES)
def test_a_router_that_comes_takes_cameras_but_moves_none_between_others(camera, routers, new):
    """A camera stays or goes to the new one; when that goes again, it comes back."""
    before, after = owner(camera, routers), owner(camera, {*routers, new})

    assert after in {before, new}


@given(camera=NAMES, routers=ROUTERS, data=st.data())
def test_a_router_that_goes_leaves_only_its_own_cameras(camera, routers, data):
    """Nobody else's camera moves."""
    gone = data.draw(st.sampled_from(routers))
    left = [router for router in routers if router != gone]
    if left and owner(camera, routers) != gone:
        assert owner(camera, left) == owner(camera, routers)


@pytest.mark.parametrize("num_routers", [2, 3, 8])
def test_shares_are_about_equal(num_routers):
    """2,000 cameras; each share has a standard deviation of at most 23 of them, five of which are allowed."""
    routers = [f"router-{number:08x}" for number in range(num_routers)]
    counts = Counter(owners(routers).values())

    assert set(counts) == set(routers)
    fair = len(CAMERAS) / num_routers
    deviation = (fair * (1 - 1 / num_routers)) ** 0.5
    assert max(abs(count - fair) for count in counts.values()) < 5 * deviation


def test_a_new_router_takes_its_share_and_no_more():
    """One of four: a quarter of the cameras moves, all of them to it."""
    routers = ["router-a", "router-b", "router-c"]
    before, after = owners(routers), owners([*routers, "router-d"])
    moved = [camera for camera in CAMERAS if before[camera] != after[camera]]

    assert {after[camera] for camera in moved} == {"router-d"}
    assert 0.2 < len(moved) / len(CAMERAS) < 0.3


def test_two_processes_find_the_same_owner():
    """Python's own hash of a text differs from process to process; here it must not count."""
    code = (
        "import sys; from serve_app.camera_owner import owner; "
        "print([owner(f'gate-{n}', ['r-1', 'r-2', 'r-3']) for n in range(50)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip

    assert said == {f"{[owner(f'gate-{n}', ['r-3', 'r-1', 'r-2']) for n in range(50)]}\n"}


def test_any_text_may_name_a_camera():
    """Names that are no UTF-8 reach the router, which refuses them; until then they belong to somebody."""
    assert owner("\ud800", ["a", "b"]) in {"a", "b"}
    assert owner("", ["a"]) == "a"


def test_without_a_router_there_is_no_owner():
    """That is for the caller to know."""
    with pytest.raises(ValueError, match="empty"):
        owner("gate-1", [])


def report(router, revision=0, *, is_ready=True):
    """What a router says of itself."""
    return RouterReport(router, "node", 1, revision, is_ready)


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([], ()),
        ([report("b"), report("a")], ("a", "b")),
        ([report("a"), report("b", is_ready=False)], ("a",)),
        ([report("a", is_ready=False), report("b", is_ready=False)], ("a", "b")),
        ([report("old"), report("new", 1)], ("new",)),
        ([report("old"), report("new", 1, is_ready=False)], ("old",)),
        ([report("old", is_ready=False), report("new", 1, is_ready=False)], ("new",)),
        ([report("a", 2), report("b", 1), report("c", 2, is_ready=False)], ("a",)),
    ],
    ids=["none", "all", "one is not ready", "none is ready", "newer", "newer not ready", "nobody", "mixed"],
)
def test_ready_routers_of_the_newest_revision_own_the_cameras(reports, expected):
    """A new revision takes over when one of its routers has replicas; before the first replica all wait alike."""
    assert owning_routers(reports) == expected
