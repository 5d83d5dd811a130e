"""Every error of the package crosses process borders whole."""

from __future__ import annotations

import pickle
import re

import pytest
from ray import cloudpickle

from serve_app import errors, replica_credits
from serve_app.errors import FramelaneError


def tree(base: type[FramelaneError]) -> list[type[FramelaneError]]:
    """A class and all that derive from it."""
    return [base, *(found for child in base.__subclasses__() for found in tree(child))]


OURS = [found for found in tree(FramelaneError) if found.__module__ in (errors.__name__, replica_credits.__name__)]


@pytest.mark.parametrize("module", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("retry_after_s", [None, 0.25])
@pytest.mark.parametrize("kind", tree(FramelaneError), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind, retry_after_s, module):
    """Ray pickles what an actor raises: type, words and attributes must arrive, or `except` does not match."""
    sent = kind("frame: got 3, allowed is 2", retry_after_s)

    arrived = module.loads(module.dumps(sent))

    assert type(arrived) is kind
    assert (str(arrived), arrived.message, arrived.retry_after_s, arrived.args, arrived.http_status) == (
        "frame: got 3, allowed is 2",
        "frame: got 3, allowed is 2",
        retry_after_s,
        ("frame: got 3, allowed is 2", retry_after_s),
        kind.http_status,
    )


@pytest.mark.parametrize("kind", tree(FramelaneError), ids=lambda kind: kind.__name__)
def test_an_error_needs_no_more_than_its_message(kind):
    """`retry_after_s` is known for some only."""
    assert (kind("gone").retry_after_s, str(kind("gone"))) == (None, "gone")


def test_each_error_has_the_status_that_its_docstring_gives():
    """The tree in the module's docstring and the classes are the same."""
    assert {found.__name__: found.http_status for found in OURS} == {
        "FramelaneError": 500,
        "InvalidFrameError": 422,
        "InvalidPlanError": 400,
        "FrameRejectedError": 429,
        "FrameExpiredError": 504,
        "FrameSupersededError": 409,
        "FrameCancelledError": 499,
        "FrameFailedError": 500,
        "FrameLostError": 503,
        "TicketUnknownError": 404,
        "TicketExpiredError": 410,
        "TooManyTicketsError": 429,
        "ServiceUnavailableError": 503,
        "ReplicaLeavingError": 503,
        "SchedulerStateError": 500,
    }
    documented = {name: int(status) for name, status in re.findall(r"(\w+Error) +(\d{3}) ", errors.__doc__)}
    assert documented == {found.__name__: found.http_status for found in OURS if found.__module__ == errors.__name__}


def test_no_error_is_retried_as_another():
    """Siblings do not catch each other: only the base catches all."""
    children = [found for found in OURS if found is not FramelaneError]

    assert [(a, b) for a in children for b in children if a is not b and issubclass(a, b)] == []
    assert not issubclass(FramelaneError, (ValueError, OSError, RuntimeError))
