"""What deploy/ tells Prometheus and Grafana, read without a YAML parser: each rule has one form, and it is checked."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tests.support.source import TOP

ALERTS: Final = TOP / "deploy" / "chart" / "files" / "alerts.yaml"
BOARD: Final = TOP / "deploy" / "chart" / "files" / "board.json"
OTHERS: Final = (
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
)
"""Metrics of Kubernetes and of Prometheus's node exporter: what is free on a disk is not ours to measure."""
_RULE: Final = re.compile(
    r"      - alert: (?P<name>\w+)\n"
    r"        expr: '(?P<expr>[^'\n]+)'\n"
    r"(?:        for: (?P<held>\d+[mh])\n)?"
    r"        labels:\n          severity: (?P<severity>page|ticket)\n"
    r'        annotations:\n          alarm: "(?P<alarm>[^"\n]+)"\n          summary: "(?P<summary>[^"\n]+)"\n'
)
_TEXT: Final = re.compile(r'"[^"]*"')
_METRIC: Final = re.compile(r"\b(?:gateway|kubelet|node|up)_\w+\b")


class Rule(NamedTuple):
    """One alert."""

    name: str
    expr: str
    held: str | None
    severity: str
    alarm: str
    """The row of docs/operations.md that says what to do."""
    summary: str


def read_rules() -> list[Rule]:
    """Every alert of alerts.yaml. Raises AssertionError for one that is written in another form."""
    text = ALERTS.read_text()
    rules = [Rule(**found.groupdict()) for found in _RULE.finditer(text)]
    assert len(rules) == text.count("- alert:")
    return rules


def metrics_in(expr: str) -> set[str]:
    """The metrics that an expression names; what stands in quotes is a label's value."""
    return set(_METRIC.findall(_TEXT.sub("", expr)))


def board() -> dict[str, Any]:
    """The board as JSON."""
    loaded: dict[str, Any] = json.loads(BOARD.read_text())
    return loaded


def board_expressions() -> Iterator[tuple[str, str]]:
    """Title of the panel, and an expression with the board's variables filled in."""
    for panel in board()["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            yield panel["title"], expr
