"""The audit's pure parts: which range is read, when a row can be priced again, and how much of a fault is told."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

import pricing
from gateway.audit.delivery import asked_span
from gateway.audit.reads.plans import ReadPlans
from gateway.audit.reads.rows import Estimates, PricedRow
from gateway.audit.reads.snapshot import AuditRange, Offenders
from gateway.audit.reprice import Reprice
from gateway.audit.result import EXAMPLES_MAX, InvariantResult, judge
from gateway.audit.rows import estimates
from gateway.audit.span import align_range, audited_span, window_length
from gateway.kit.errors import OptionError
from gateway.usage.adjust import Recorded, adjustment
from gateway.usage.event import UsageEvent
from gateway.usage.plans import KnownPlans, PlanBook, PlanVersion
from gateway.usage.settle import NOT_BILLED, Settler
from pricing.data import read_texts
from tests.support.audits import Maker
from tests.support.plans import make_plan

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
        msgspec.json.encode(event.metadata.get("billable")).decode(), event.prompt_tokens, event.completion_tokens,
        event.total_tokens, event.cost_nano, event.billed_nano, event.price_version,
        msgspec.json.encode(event.cost_lines).decode(), event.evidence, event.user_id, event.api_key_id,
        event.plan_version or None, is_old=False,
        tier_asked=event.metadata.get("service_tier_asked"), is_not_billed=NOT_BILLED in event.metadata,
        is_by_hand=False, exact=None,
    )._replace(**changes)  # fmt: skip


def again(*rows: PricedRow, book: pricing.Book = BOOK, plans: PlanBook | None = None) -> InvariantResult:
    reprice = Reprice(book, ReadPlans(plans or PlanBook(), Offenders()))
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
    assert "1 × cost is not the sum of its lines" in again(tools._replace(cost_nano=1)).wrong


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
        ({"billed_nano": None}, "billed amount is not what its plan makes of the cost"),
        ({"billed_nano": -1}, "billed amount is not what its plan makes of the cost"),
        ({"plan_version": None, "billed_nano": None}, "billed amount cannot follow from the cost"),
        ({"plan_version": None, "billed_nano": -1}, "billed amount cannot follow from the cost"),
        ({"usage": '{"prompt_tokens":1}'}, "cost is not what usage and price book give"),
        ({"model": "gpt-5.1", "billable": '{"model":"no-such"}'}, "cost is not what usage and price book give"),
    ],
)
def test_each_part_of_a_row_is_held_to_the_others(maker: Maker, changes: dict[str, object], wrong: str) -> None:
    verdict = again(row(maker.reported(NOW), **changes))
    assert verdict.state == "breach"
    assert any(wrong in said for said in verdict.wrong), verdict.wrong


def test_billed_amounts_follow_from_what_the_row_names_whatever_holds_today(maker: Maker) -> None:
    events = [maker.reported(NOW, settler=settler(markup=markup)) for markup in ("1.3", "1", "0", "1.2345678") * 5]
    verdict = again(*map(row, events))
    assert (verdict.state, verdict.figures["billed amounts derived"]) == ("ok", 20)
    # To the nano: the amount of another mark-up is a breach, and so is one nano more.
    wrong = row(events[0], plan_version="markup:1.2"), row(events[0], billed_nano=(events[0].billed_nano or 0) + 1)
    assert again(*wrong).wrong == ("2 × billed amount is not what its plan makes of the cost",)


OWN: dict[str, Any] = {"gpt-5.1": {"output_tokens": "0.00005"}, "gpt-4.1": {"input_tokens": "0.0000001"}}


@pytest.mark.parametrize(
    "plan",
    [
        make_plan("p", "1.37"),
        make_plan("p", kind="discount", rates={"percent": "7.5"}),
        make_plan("p", kind="free", rates={}),
        make_plan("p", kind="price_list", rates={"usd_per_unit": OWN, "factor": "1.1"}),
    ],
)
@pytest.mark.parametrize("bill_estimates", [True, False])
def test_every_kind_of_row_is_derived_from_its_plan(plan: PlanVersion, bill_estimates: bool) -> None:
    book = PlanBook([plan])
    valuer = Settler(BOOK, markup=Decimal(9), bill_estimates=bill_estimates, region=None, plans=KnownPlans(book))
    made = Maker("u", "k", valuer)
    events = [make(NOW) for make in (made.reported, made.estimated, made.void, made.unpriced) for _ in range(10)]
    assert {event.plan_version for event in events} == {"p@1"}
    verdict = again(*map(row, events), plans=book)
    assert (verdict.state, verdict.figures["billed amounts derived"]) == ("ok", 30)  # what has no price is not billed
    changed = [row(event, billed_nano=(event.billed_nano or 0) + 1) for event in events if event.cost_nano is not None]
    assert again(*changed, plans=book).wrong == ("30 × billed amount is not what its plan makes of the cost",)
    assert again(row(events[0])).wrong == ("1 × plan_version names a plan that there is not",)


def test_a_late_answer_is_derived_from_the_whole_call(maker: Maker) -> None:
    exact = maker.reported(NOW, settler=settler(markup="1.5"))
    made = adjustment(Recorded(exact.id, 1, 1, 2, 100, 150, "markup:1.5"), exact, NOW)
    said = {name: made.metadata[f"exact_{name}"] for name in ("cost_usd", "billed_usd", "lines")}
    text = msgspec.json.encode(said | {"was_nano": 150}).decode()
    assert again(row(made, exact=text)).state == "ok"
    for wrong in ({"exact": text, "billed_nano": 1}, {"exact": text.replace('"was_nano":150', '"was_nano":151')}):
        assert again(row(made, **wrong)).state == "breach"
    assert again(row(made, exact=text, plan_version="markup:1.2")).state == "breach"


def test_what_cannot_be_derived_is_counted(maker: Maker) -> None:
    event = maker.reported(NOW)
    counted: dict[str, dict[str, Any]] = {
        "billed before there were plans, not by an exact mark-up": {"plan_version": "legacy"},
        "billed by a version that names no plan": {"plan_version": None},
        "billed as a person has said": {"is_by_hand": True},
    }
    for name, changes in counted.items():
        verdict = again(row(event, **changes, billed_nano=(event.billed_nano or 0) + 5))
        assert (verdict.state, verdict.figures[name], verdict.figures["billed amounts derived"]) == ("ok", 1, 0)


def test_a_factor_that_a_migration_has_found_gives_the_amount_but_for_a_tie(maker: Maker) -> None:
    event = maker.reported(NOW)
    old = {"is_old": True, "plan_version": "markup:1.5", "cost_nano": 5, "evidence": "estimated"}
    assert [again(row(event, **old, billed_nano=nano)).state for nano in (6, 7, 8, 9)] == [
        "breach",
        "ok",
        "ok",
        "breach",
    ]


def test_a_row_of_another_plan_than_the_one_in_force_is_named(maker: Maker) -> None:
    plan = make_plan("p", valid_from=NOW, valid_to=NOW + DAY)
    book = PlanBook([plan])
    missed = row(maker.reported(NOW))  # by the setting: its proxy did not know the plan
    late = row(maker.reported(NOW - DAY), plan_version="p@1", billed_nano=0, cost_nano=0, lines="[]", evidence="void")
    before, after = (row(maker.reported(at)) for at in (NOW - DAY, NOW + DAY))
    verdict = again(missed, late, before, after, plans=book)
    assert (verdict.state, verdict.figures["billed by another plan than the one in force"]) == ("ok", 2)
    assert verdict.examples == (missed.id, late.id)
    assert "gateway adjust" in verdict.look
    reprice = Reprice(BOOK, ReadPlans(book, Offenders()))
    reprice.take(missed)
    assert reprice.verdict(corrected=1).examples == ()


def test_a_plan_that_somebody_changed_is_a_breach() -> None:
    reprice = Reprice(BOOK, ReadPlans(PlanBook(), Offenders(1, ("p@1",))))
    assert reprice.verdict().wrong == ("1 × plan is not what its digest says",)


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
