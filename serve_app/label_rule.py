"""Which machines a pool's labels allow: Ray's label selectors, checked and matched as Ray does it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.errors import InvalidPlanError

# Kubernetes' syntax, which Ray takes over: up to 63 letters, digits, `_`, `.` and `-`, a letter or digit at each end.
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:(?P<prefix>{_WORD}(?:\.{_WORD})*)/)?{_WORD}")
_VALUE = re.compile(rf"(?P<no>!?)(?:in\((?P<many>{_WORD}(?:, ?{_WORD})*)\)|(?P<one>{_WORD}))")
MAX_PREFIX_LENGTH = 253


@dataclass(frozen=True, slots=True)
class LabelRule:
    """What one label of a machine must be.

    Attributes:
        key: the label's name.
        values: what it may be, or may not be.
        negated: whether `values` are what it may not be; then a machine without this label is allowed.
        selector: the same as Ray's label selector. Without spaces: Ray 2.60 takes `in(l4, a10)`, and looks for ` a10`.
    """

    key: str
    values: frozenset[str]
    negated: bool
    selector: str

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Whether a machine with these labels is one of those that are meant."""
        return (labels.get(self.key) in self.values) is not self.negated


def label_rules(labels: Mapping[str, str], where: str) -> tuple[LabelRule, ...]:
    """The rules of a plan's `labels`, all of which a machine must follow.

    Args:
        labels: label to value: `l4`, `!l4`, `in(l4, a10)` or `!in(l4, a10)`.
        where: how the plan calls them, for the error.

    Raises:
        InvalidPlanError: a text that Ray does not understand.
    """
    return tuple(_rule(key, value, where) for key, value in labels.items())


def _rule(key: str, value: str, where: str) -> LabelRule:
    match = _KEY.fullmatch(key)
    if match is None or len(match["prefix"] or "") > MAX_PREFIX_LENGTH:
        raise InvalidPlanError(
            f"{where}: got the label {key!r}, allowed are up to 63 letters, digits, '_', '.' and '-' with a letter or "
            "digit at both ends, as in gpu or ray.io/accelerator-type"
        )
    found = _VALUE.fullmatch(value)
    if found is None:
        raise InvalidPlanError(
            f"{where}.{key}: got {value!r}, allowed are a value such as l4, '!l4' for any other, in(l4, a10) for one "
            "of several, '!in(l4, a10)' for none of them"
        )
    values = found["many"].replace(" ", "").split(",") if found["many"] else [found["one"]]
    return LabelRule(key, frozenset(values), found["no"] == "!", value.replace(" ", ""))
