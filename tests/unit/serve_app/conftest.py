"""Ray Serve's import warns of pydantic's future; that is Ray's affair, while all other warnings stay errors here."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray.serve  # noqa: F401 (imported here once, so that no test is the first)
