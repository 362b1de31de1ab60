"""Estimates are best guesses; their bound is never below them, nor below what a report could cost."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import Book, Estimate, estimate
from tests.pricing.cases import NOW, ask, mtok, responses

KNOWN = {"endpoint": "chat", "model": "gpt-5.6-luna", "at": NOW, "service_tier": None}
COUNTS = {"input_tokens": 100, "output_tokens": 20, "input_bound": 400, "output_bound": 1000}


def guess(book: Book, **change: Any) -> Estimate:
    return estimate(book, **{**KNOWN, **COUNTS, **change})


def money(nano: int | None) -> Decimal:
    assert nano is not None
    return Decimal(nano).scaleb(-9)


def test_estimate_and_bound(book: Book) -> None:
    found = guess(book)
    assert money(found.cost_nano) == mtok("0.2", 100) + mtok("1.2", 20)
    assert money(found.bound_nano) == mtok("0.25", 400) + mtok("1.2", 1000)
    assert (found.problems, found.low_confidence, found.price_version) == ((), False, book.version)
    assert money(guess(book, cache_ttl="12h").bound_nano) == mtok("0.5", 400) + mtok("1.2", 1000)


def test_auto_is_guessed_as_default_and_bounded_by_priority(book: Book) -> None:
    found = guess(book, service_tier="auto")
    assert money(found.cost_nano) == mtok("0.2", 100) + mtok("1.2", 20)
    assert money(found.bound_nano) == mtok("0.5", 400) + mtok("2.4", 1000)
    assert found.low_confidence
    assert "auto" in found.problems[0]
    assert guess(book, model="gpt-5-nano", service_tier="auto").cost_nano is not None


def test_a_flex_call_may_be_served_as_default(book: Book) -> None:
    found = guess(book, service_tier="flex")
    assert money(found.cost_nano) == mtok("0.1", 100) + mtok("0.6", 20)
    assert money(found.bound_nano) == mtok("0.25", 400) + mtok("1.2", 1000)


def test_the_bound_may_be_long_context_where_the_estimate_is_not(book: Book) -> None:
    found = guess(book, input_bound=272_001)
    assert money(found.bound_nano) == mtok("0.5", 272_001) + mtok("1.8", 1000)


def test_search_models_and_audio(book: Book) -> None:
    found = guess(book, model="gpt-4o-search-preview")
    assert money(found.cost_nano) == mtok("2.5", 100) + mtok("10", 20) + Decimal("0.025")
    assert money(guess(book, model="gpt-audio").bound_nano) == mtok("32", 400) + mtok("64", 1000)


def test_other_endpoints(book: Book) -> None:
    embedding = guess(book, endpoint="embeddings", model="text-embedding-3-small", output_tokens=0, output_bound=0)
    assert (money(embedding.cost_nano), money(embedding.bound_nano)) == (mtok("0.02", 100), mtok("0.02", 400))
    decision = guess(book, endpoint="decisions", model="gpt-6-luna")
    assert money(decision.cost_nano) == mtok("0.1", 100)
    free = guess(book, endpoint="moderations", model="omni-moderation-latest")
    assert (free.cost_nano, free.bound_nano) == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "gpt-99"}, "not in the price book"),
        ({"service_tier": "scale"}, "service_tier 'scale'"),
        ({"service_tier": "ultrafast"}, "no 'ultrafast' price"),
        ({"endpoint": "audio"}, "endpoint 'audio'"),
        ({"region": "mars"}, "region 'mars'"),
        ({"at": datetime(2026, 1, 1)}, "no offset"),  # noqa: DTZ001
    ],
)
def test_what_cannot_be_estimated(book: Book, change: dict[str, Any], message: str) -> None:
    found = guess(book, **change)
    assert (found.cost_nano, found.bound_nano, found.lines) == (None, None, ())
    assert message in found.problems[0]


def test_negative_counts_are_a_bug_of_the_caller(book: Book) -> None:
    with pytest.raises(ValueError, match="negative"):
        guess(book, input_tokens=-1)


@given(
    model=st.sampled_from(["gpt-5.6-sol", "gpt-5.5", "gpt-4o", "gpt-6.2-sol", "o3", "gpt-6.1-terra"]),
    tier=st.sampled_from([None, "default", "flex", "priority"]),
    spent=st.tuples(st.integers(0, 400_000), st.integers(0, 130_000)),
    split=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    at=st.sampled_from([datetime(2026, 8, 1, tzinfo=UTC), NOW]),
    region=st.sampled_from([None, "eu"]),
)
def test_no_reported_call_within_the_bounds_costs_more_than_the_bound(
    book: Book,
    model: str,
    tier: str | None,
    spent: tuple[int, int],
    split: tuple[int, int],
    at: datetime,
    region: str | None,
) -> None:
    cached = spent[0] * min(split) // 200
    written = (spent[0] - cached) * max(split) // 100
    usage = responses(*spent, cached_tokens=cached, cache_write_tokens=written)
    priced = ask(book, model, usage, endpoint="responses", at=at, service_tier=tier, region=region)
    found = guess(
        book,
        endpoint="responses",
        model=model,
        service_tier=tier,
        at=at,
        region=region,
        input_bound=spent[0],
        output_bound=spent[1],
        input_tokens=spent[0] // 2,
        output_tokens=spent[1] // 2,
    )
    if priced.cost_nano is None or found.bound_nano is None or found.cost_nano is None:
        assert priced.cost_nano is None
        assert found.bound_nano is None
        return
    assert priced.cost_nano <= found.bound_nano
    assert found.cost_nano <= found.bound_nano
