"""pricing/ against the independent recomputation, over every model and tier of the book."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing import Book
from pricing.data import read_texts
from tests.pricing.cases import NOW, ask, responses
from tests.support.recompute import recompute

TEXTS = read_texts()
MODELS = sorted(block.split('"')[1] for text in TEXTS.values() for block in text.split("[[model]]\nid = ")[1:])
NAMES = [
    *MODELS,
    "gpt-5.6",
    "gpt-5.5-2026-04-23",
    "ft:gpt-4.1-2025-04-14:acme::x",
    "gpt-99",
    "gpt-4-1106-preview",
    "davinci:2023-07-21-v2",
]


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    whole, out = draw(st.integers(0, 600_000)), draw(st.integers(0, 128_000))
    cached = draw(st.integers(0, whole))
    written = draw(st.integers(0, whole - cached))
    details: dict[str, Any] = {"cached_tokens": cached, "cache_write_tokens": written}
    if draw(st.booleans()):
        details["cache_write_tokens_details"] = {"ttl_12h_tokens": draw(st.integers(0, written))}
    return responses(whole, out, **details) if draw(st.booleans()) else responses(whole, out)


@settings(max_examples=300)
@given(
    endpoint=st.sampled_from(["chat", "responses", "decisions"]),
    model=st.sampled_from(NAMES),
    tier=st.sampled_from([None, "default", "flex", "priority", "fast", "ultrafast", "auto"]),
    at=st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    usage=usages(),
    batch=st.booleans(),
    region=st.sampled_from([None, None, "eu", "mars"]),
    ttl=st.sampled_from([None, "30m", "12h"]),
    window=st.sampled_from([None, None, "2h", "8h"]),
)
def test_two_ways_to_the_same_price(
    book: Book,
    endpoint: str,
    model: str,
    tier: str | None,
    at: datetime,
    usage: dict[str, Any],
    batch: bool,
    region: str | None,
    ttl: str | None,
    window: str | None,
) -> None:
    more: dict[str, Any] = {"batch": batch, "region": region, "cache_ttl": ttl, "completion_window": window}
    if batch:
        more["completion_window"] = None
    priced = ask(book, model, usage, endpoint=endpoint, at=at, service_tier=tier, **more)
    again = recompute(TEXTS, endpoint, model, tier, at, usage, **more)
    assert priced.cost_nano == (None if again is None else int(again.scaleb(9)))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_at_the_edges_of_its_periods(book: Book, model: str) -> None:
    found = book.resolve(model)
    assert found is not None
    assert found.id == model
    edges = {edge for price in found.price for edge in (price.from_, price.until) if edge is not None} | {NOW}
    usage: dict[str, Any] = {"prompt_tokens": 272_001, "total_tokens": 272_001}
    if found.kind in ("text", "moderation"):
        usage = {"prompt_tokens": 272_001, "completion_tokens": 77, "prompt_tokens_details": {"cached_tokens": 1_001}}
    endpoint = {"embedding": "embeddings", "moderation": "moderations"}.get(found.kind, "chat")
    if found.kind == "image":
        usage["completion_tokens"] = 0
    for edge in edges:
        for at in (edge - timedelta(microseconds=1), edge):
            priced = ask(book, model, usage, endpoint=endpoint, at=at)
            again = recompute(TEXTS, endpoint, model, None, at, usage)
            assert again is not None
            assert priced.cost_nano == int(again.scaleb(9)), (model, at)
            assert again >= Decimal(0)
