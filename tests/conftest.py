"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine must not fail a test (no deadline), and a failure must come again on the next run (derandomised).
settings.register_profile("framelane", deadline=None, derandomize=True, database=None)
settings.load_profile("framelane")
