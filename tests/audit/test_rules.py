"""The audit's pure parts: which range is read, when a row can be priced again, and how much of a fault is told."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

import pricing
from gateway.audit.delivery import asked_span
from gateway.audit.reads.rows import Estimates, PricedRow
from gateway.audit.reads.snapshot import AuditRange, Offenders
from gateway.audit.reprice import Reprice
from gateway.audit.result import EXAMPLES_MAX, InvariantResult, judge
from gateway.audit.rows import estimates
from gateway.audit.span import align_range, audited_span, window_length
from gateway.kit.errors import OptionError
from gateway.usage.event import UsageEvent
from gateway.usage.settle import Settler
from pricing.data import read_texts
from tests.support.audits import Maker

TEXTS = read_texts()
BOOK = pricing.parse(TEXTS)
NOW = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def settler(*, region: str | None = None, markup: str = "1") -> Settler:
    return Settler(BOOK, markup=Decimal(markup), bill_estimates=True, region=region)


def row(event: UsageEvent, **changes: Any) -> PricedRow:
    """The event as the database gives it back."""
    return PricedRow(
        event.id, event.endpoint, event.model, event.service_tier, event.started_at, bytes(event.usage),
        msgspec.json.encode(event.metadata["billable"]).decode(), event.prompt_tokens, event.completion_tokens,
        event.total_tokens, event.cost_nano, event.billed_nano, event.price_version,
        msgspec.json.encode(event.cost_lines).decode(),
    )._replace(**changes)  # fmt: skip


def again(*rows: PricedRow, book: pricing.Book = BOOK) -> InvariantResult:
    reprice = Reprice(book, markup=Decimal(1))
    for one in rows:
        reprice.take(one)
    return reprice.verdict()


def newer_book(*, dearer: bool) -> pricing.Book:
    """The same prices under another version, or all of them changed."""
    texts = {name: text + "\n# newer\n" for name, text in TEXTS.items()}
    if dearer:
        texts = {name: text.replace("{ input = ", "{ input = 1") for name, text in texts.items()}
        assert any(text != TEXTS[name] + "\n# newer\n" for name, text in texts.items())
    return pricing.parse(texts)


@pytest.fixture
def maker() -> Maker:
    return Maker("u", "k", settler())


def test_rows_as_settled_are_right(maker: Maker) -> None:
    abroad = [maker.reported(NOW, settler=settler(region="eu")) for _ in range(20)]
    assert any("region" in event.metadata["billable"] for event in abroad)
    verdict = again(*(row(maker.reported(NOW)) for _ in range(50)), *map(row, abroad))
    assert (verdict.state, verdict.figures["re-priced"]) == ("ok", 70)


def test_a_row_of_an_older_book_is_priced_again_while_its_rates_hold(maker: Maker) -> None:
    right = row(maker.reported(NOW))
    wrong = right._replace(cost_nano=(right.cost_nano or 0) + 1)
    verdict = again(right, book=newer_book(dearer=False))
    assert (verdict.state, verdict.figures["of an older book"], verdict.figures["re-priced"]) == ("ok", 1, 1)
    assert again(wrong, book=newer_book(dearer=False)).state == "breach"


def test_a_row_of_other_rates_is_counted_not_condemned(maker: Maker) -> None:
    verdict = again(row(maker.reported(NOW)), book=newer_book(dearer=True))
    assert (verdict.state, verdict.figures["not re-priced, rates have changed"]) == ("ok", 1)


def test_a_row_priced_by_more_than_its_usage_is_counted_not_condemned(maker: Maker) -> None:
    right = row(maker.reported(NOW))
    tools = right._replace(billable='{"model":"gpt-5.1","web_searches":3}')
    verdict = again(tools)
    assert (verdict.state, verdict.figures["not re-priced, more than usage is needed"]) == ("ok", 1)
    # Its lines must add up all the same.
    assert again(tools._replace(cost_nano=1)).wrong == ("1 × cost is not the sum of its lines",)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"total_tokens": 1}, "tokens are not those of the usage block"),
        ({"lines": "[]"}, "cost is not the sum of its lines"),
        ({"lines": '"no lines"'}, "cost_lines do not read"),
        ({"lines": '[{"unit":"a","quantity":"x","usd_per_unit":"1","usd":"1"}]'}, "cost is not the sum of its lines"),
        (
            {"lines": '[{"unit":"a","quantity":"1","usd_per_unit":"Infinity","usd":"Infinity"}]'},
            "cost is not the sum of its lines",
        ),
        ({"billed_nano": None}, "billed amount cannot follow from the cost"),
        ({"billed_nano": -1}, "billed amount cannot follow from the cost"),
        ({"usage": '{"prompt_tokens":1}'}, "cost is not what usage and price book give"),
        ({"model": "gpt-5.1", "billable": '{"model":"no-such"}'}, "cost is not what usage and price book give"),
    ],
)
def test_each_part_of_a_row_is_held_to_the_others(maker: Maker, changes: dict[str, object], wrong: str) -> None:
    verdict = again(row(maker.reported(NOW), **changes))
    assert verdict.state == "breach"
    assert any(wrong in said for said in verdict.wrong), verdict.wrong


def test_another_markup_is_counted_and_no_breach(maker: Maker) -> None:
    verdict = again(row(maker.reported(NOW, settler=settler(markup="1.3"))))
    assert (verdict.state, verdict.figures["billed at another markup than today's"]) == ("ok", 1)


def test_memory_does_not_grow_with_the_number_of_offenders(maker: Maker) -> None:
    wrong = row(maker.reported(NOW))._replace(total_tokens=1)
    verdict = again(*(wrong for _ in range(500)))
    assert verdict.wrong == ("500 × tokens are not those of the usage block",)
    assert len(verdict.examples) == EXAMPLES_MAX


def test_each_broken_rule_gets_examples() -> None:
    broken = {rule: Offenders(50, tuple(f"{rule}{number}" for number in range(10))) for rule in "abc"}
    examples = judge("INV-0", "none", {}, broken, "").examples
    assert {example[0] for example in examples} == set("abc")
    assert len(examples) <= EXAMPLES_MAX


def test_the_usual_range() -> None:
    assert audited_span(None, None, NOW) == AuditRange(at("2026-11-21"), None)
    assert audited_span(None, None, NOW, everything=True) == AuditRange(None, None)
    assert audited_span("yesterday", "today", NOW) == AuditRange(at("2026-11-22"), at("2026-11-23"))
    with pytest.raises(OptionError, match="--from"):
        audited_span(None, "2026-11-20", NOW)


def test_ranges_are_widened_to_whole_windows() -> None:
    wanted = AuditRange(at("2026-11-22T10:59:59"), at("2026-11-22T11:00:01"))
    assert (
        align_range(wanted, [3600])
        == align_range(wanted, [60])
        == AuditRange(at("2026-11-22T10:00"), at("2026-11-22T12:00"))
    )
    assert align_range(wanted, [86_400]) == AuditRange(at("2026-11-22"), at("2026-11-23"))
    assert align_range(align_range(wanted, [86_400]), [86_400]) == AuditRange(at("2026-11-22"), at("2026-11-23"))
    assert align_range(AuditRange(None, None), [3600]) == AuditRange(None, None)


def test_windows_are_compared_only_where_they_are_whole_and_alike() -> None:
    day = AuditRange(at("2026-11-22"), at("2026-11-23"))
    assert window_length(day, []) == 3600
    assert window_length(day, [86_400]) == 86_400
    assert window_length(day, [3600, 86_400]) is None
    assert window_length(align_range(day, [86_399]), [86_399]) is None


def test_stripe_is_asked_about_hours_that_have_settled() -> None:
    asked = asked_span(AuditRange(at("2026-11-21"), None), NOW, 300)
    assert asked == (at("2026-11-21"), at("2026-11-23T12:00"))
    assert asked_span(AuditRange(None, at("2026-11-20")), NOW, 300) == (
        NOW.replace(minute=0) - 90 * DAY,
        at("2026-11-20"),
    )
    # Nothing at all where the range is younger than that.
    young = asked_span(AuditRange(at("2026-11-23T12:00"), None), NOW, 300)
    assert young.since >= young.until


def test_no_call_is_no_share() -> None:
    assert estimates(Estimates([], Offenders()), 0).figures["% of calls"] == "0.000"
