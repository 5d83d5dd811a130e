"""The code blocks of a page, and which of them the tests run.

A block of `sh` or `python` runs, unless a line right above it says why it cannot: `*Not run by the tests: REASON.*`.
Blocks of other languages are data, which nobody runs.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

RUN = ("sh", "python")
# What is shown: files, output, directives of Sphinx.
SHOWN = ("text", "yaml", "json", "ini", "promql", "{toctree}", "{eval-rst}")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)(?P<more>.*)$")
MARK = re.compile(r"^ *\*Not run by the tests: (?P<reason>.+)\.\*$")


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """One block.

    Attributes:
        line: the number of its fence, from 1.
        language: what the fence says.
        code: what lies between the fences, without their indentation.
        not_run_because: the reason of its mark; None: it has none.
    """

    line: int
    language: str
    code: str
    not_run_because: str | None = None

    @property
    def runs(self) -> bool:
        """Whether the tests run it."""
        return self.language in RUN and self.not_run_because is None


def blocks_of(page: str) -> Iterator[CodeBlock]:
    """The blocks of a page in its order; raises `ValueError` for one without an end."""
    lines = page.splitlines()
    number = 0
    while number < len(lines):
        fence = FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        end = next((at for at in range(number + 1, len(lines)) if lines[at].strip() == "```"), None)
        if end is None:
            raise ValueError(f"line {number + 1}: the code block has no end")
        mark = MARK.match(lines[number - 1]) if number else None
        code = textwrap.dedent("\n".join(lines[number + 1 : end])) + "\n"
        yield CodeBlock(number + 1, fence["language"], code, mark["reason"] if mark else None)
        number = end + 1
