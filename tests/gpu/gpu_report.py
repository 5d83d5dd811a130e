"""What the tests on a GPU found out, as one block of text that fits an issue."""

from __future__ import annotations

from collections.abc import Mapping


class GpuReport:
    """Lines under headings, in the order in which they came."""

    def __init__(self) -> None:
        self._sections: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._sections)

    def add(self, heading: str, *lines: str) -> None:
        """Put lines below a heading; a line that is there already is not repeated."""
        section = self._sections.setdefault(heading, [])
        section += [line for line in lines if line not in section]

    def text(self, outcomes: Mapping[str, int]) -> str:
        """All of it, and how many tests ended how."""
        lines = ["", "======== framelane: report of make test-gpu, from here ========"]
        for heading, section in self._sections.items():
            lines += [f"{heading}:", *(f"  {line}" for line in section)]
        counts = ", ".join(f"{count} {kind}" for kind, count in outcomes.items())
        return "\n".join([*lines, f"tests: {counts}", "======== to here ========"])


REPORT = GpuReport()
