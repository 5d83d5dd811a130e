"""Every error crosses a process boundary whole: a Ray actor raises it, its caller catches it."""

from __future__ import annotations

import inspect
import pickle

import pytest

from engines import errors

ERRORS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling(error):
    """Type, arguments and message are the same on the other side."""
    raised = error("canvas 100x100: got this, allowed is that; do so")
    received = pickle.loads(pickle.dumps(raised))  # noqa: S301 - our own bytes
    assert (type(received), received.args, str(received)) == (error, raised.args, str(raised))


@pytest.mark.parametrize("error", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_is_an_engine_error_and_in_the_tree(error):
    """One `except EngineError` catches them all, and the module's tree names each."""
    assert issubclass(error, errors.EngineError)
    assert error.__name__ in errors.__doc__


def test_the_export_extras_error_survives_pickling():
    """The one error that lives beside the exporter keeps the same rule."""
    from engines.export import ExportExtraMissingError

    raised = ExportExtraMissingError("export: no torch")
    received = pickle.loads(pickle.dumps(raised))  # noqa: S301 - our own bytes
    assert (type(received), received.args) == (ExportExtraMissingError, ("export: no torch",))
    assert issubclass(ExportExtraMissingError, errors.EngineError)
