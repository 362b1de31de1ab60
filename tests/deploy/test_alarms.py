"""Alarms and board name metrics that the gateway has, and every alarm that the operator is told of has its rule."""

import re
from typing import Final

import pytest

from gateway.kit.metrics import FAMILIES
from tests.deploy.names import OTHERS, board, board_expressions, metrics_in, read_rules
from tests.support.source import TOP

CODE: Final = re.compile(r"`([^`]+)`")
PARTS: Final = ("_bucket", "_sum", "_count")
"""What Prometheus makes of a histogram."""


def exposed() -> set[str]:
    """Every name under which the gateway shows a figure."""
    plain = {name for name, family in FAMILIES.items() if family.kind != "histogram"}
    return plain | {name + part for name in FAMILIES.keys() - plain for part in PARTS}


def told() -> dict[str, str]:
    """Alarm → when, of the table in docs/operations.md."""
    page = (TOP / "docs" / "operations.md").read_text()
    table = page.partition("## What to watch\n")[2].partition("| alarm |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines()[2:]]
    assert all(len(row) == 3 for row in rows)
    return {alarm.strip(): when for alarm, when, _ in rows}


def labels_in(expr: str) -> set[tuple[str, str]]:
    """Metric and label of every selector of ours."""
    selectors = re.findall(r"\b(gateway_\w+)\{([^}]*)\}", expr)
    return {(name, label) for name, inside in selectors for label in re.findall(r"(\w+)\s*[=!]", inside)}


def unknown_labels(expr: str) -> list[tuple[str, str]]:
    """Labels that the metric does not have; `instance` comes from Prometheus, `le` from histograms."""
    found = []
    for name, label in labels_in(expr):
        family = FAMILIES.get(name) or FAMILIES[re.sub(r"_(bucket|sum|count)$", "", name)]
        if label not in {*family.labels, "instance", "le"}:
            found.append((name, label))
    return found


def test_every_metric_of_the_alarms_is_there() -> None:
    rules = read_rules()
    assert len(rules) > 20
    named = {name for rule in rules for name in metrics_in(rule.expr)}
    assert sorted(named - exposed() - {*OTHERS}) == []
    assert sorted({*OTHERS} - named) == []
    assert [(rule.name, unknown_labels(rule.expr)) for rule in rules if unknown_labels(rule.expr)] == []


def test_every_alarm_that_the_operator_is_told_of_has_its_rule() -> None:
    rules = {rule.alarm: rule for rule in read_rules()}
    assert sorted(rules) == sorted(told())
    assert len({rule.name for rule in rules.values()}) == len(rules) == len(read_rules())
    for alarm, when in told().items():
        condition = CODE.search(when)
        assert condition, alarm
        assert condition[1] in rules[alarm].expr, alarm


def test_every_alarm_is_tried_with_figures() -> None:
    tried = set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n", (TOP / "deploy" / "alerts_test.yaml").read_text()))
    assert {rule.name for rule in read_rules()} == tried  # `make check-deploy` has promtool try them


def test_every_metric_of_the_board_is_there() -> None:
    expressions = list(board_expressions())
    assert len(expressions) > 20
    for title, expr in expressions:
        assert metrics_in(expr), title
        assert sorted(metrics_in(expr) - exposed()) == [], title
        assert unknown_labels(expr) == [], title


def test_the_board_shows_what_an_alarm_is_about() -> None:
    shown = {name for _, expr in board_expressions() for name in metrics_in(expr)}
    wanted = {name for rule in read_rules() for name in metrics_in(rule.expr)}
    assert sorted(wanted - shown - {*OTHERS}) == []


def test_the_board_has_one_of_every_panel_and_asks_the_source_that_is_chosen() -> None:
    panels = board()["panels"]
    for field in ("id", "title"):
        values = [panel[field] for panel in panels]
        assert len(set(values)) == len(values)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert {panel["datasource"]["uid"] for panel in panels if "targets" in panel} == {"${source}"}
    assert {variable["name"] for variable in board()["templating"]["list"]} == {"source", "instance"}


@pytest.mark.parametrize(
    ("expr", "named"),
    [
        ('rate(gateway_refused_total{code="gateway_error"}[5m]) > 0', {"gateway_refused_total"}),
        ("gateway_no_such_metric > 0", {"gateway_no_such_metric"}),
        ("max by (state) (gateway_meter_events)", {"gateway_meter_events"}),
    ],
)
def test_the_names_are_read_and_not_the_labels(expr: str, named: set[str]) -> None:
    assert metrics_in(expr) == named
    assert "gateway_no_such_metric" not in exposed()


def test_a_label_that_a_metric_does_not_have_is_found() -> None:
    assert unknown_labels('gateway_meter_events{status="unknown"} > 0') == [("gateway_meter_events", "status")]
    assert unknown_labels('gateway_added_seconds_bucket{endpoint="chat", le="1"}') == []
