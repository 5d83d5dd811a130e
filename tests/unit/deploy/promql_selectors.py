"""Which metrics and labels a PromQL expression asks for: parsed by the parser of Prometheus, not searched for."""

from __future__ import annotations

from typing import NamedTuple

import promql_parser as promql

# Grafana's variables, as they are filled in.
VARIABLES = {"$__rate_interval": "5m", "$critical_deadline": "0.25", "$pool": ".*"}


class Selected(NamedTuple):
    """One selector: the metric, the labels that it matches by value, and those by which its series are grouped."""

    name: str
    matchers: dict[str, str]
    grouped_by: frozenset[str]


def filled(expression: str) -> str:
    """The expression as Grafana sends it."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def selectors(expression: str) -> list[Selected]:
    """All selectors of an expression; raises `ValueError` if it is no PromQL."""
    return list(_walk(promql.parse(filled(expression)), frozenset()))


def _walk(node, grouped_by):
    match node:
        case promql.AggregateExpr():
            modifier = node.modifier
            if modifier is not None:
                assert modifier.type == promql.AggModifierType.By, "without() would keep labels that nobody named"
            yield from _walk(node.expr, grouped_by | set(modifier.labels if modifier else ()))
        case promql.Call():
            for argument in node.args:
                yield from _walk(argument, grouped_by)
        case promql.BinaryExpr():
            yield from _walk(node.lhs, grouped_by)
            yield from _walk(node.rhs, grouped_by)
        case promql.ParenExpr() | promql.UnaryExpr():
            yield from _walk(node.expr, grouped_by)
        case promql.MatrixSelector():
            yield from _walk(node.vector_selector, grouped_by)
        case promql.VectorSelector():
            matchers = {matcher.name: matcher.value for matcher in node.matchers.matchers}
            yield Selected(node.name, matchers, grouped_by)
        case promql.NumberLiteral():
            pass
        case _:
            raise AssertionError(f"not looked into: {node!r}")
