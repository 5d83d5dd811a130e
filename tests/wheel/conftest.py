"""One wheel and one newcomer for all tests of this folder."""

from __future__ import annotations

import pytest
from newcomer import Newcomer, build_wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The built wheel."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def newcomer(wheel, tmp_path_factory):
    """Who has just installed it."""
    newcomer = Newcomer(tmp_path_factory.mktemp("newcomer"), wheel)
    yield newcomer
    newcomer.close()
