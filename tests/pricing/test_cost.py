"""Costs of golden bodies as plain arithmetic, and everything that must stay unpriced."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import Book, Priced, PriceRequest, estimate, nano_text, parse, price
from tests.pricing.cases import BEFORE_PROMO_END, NOW, ask, chat, golden, mtok, responses, usd

PROMO_END = datetime(2026, 11, 22, tzinfo=UTC)
ULTRAFAST_END = datetime(2027, 3, 1, tzinfo=UTC)


def lines(priced: Priced) -> dict[str, str]:
    return {line.unit: line.quantity for line in priced.lines}


GOLDEN: list[tuple[str, str, str, Decimal]] = [
    ("chat", "chat", "gpt-4o-2024-08-06", mtok("2.5", 1117) + mtok("10", 46)),
    ("chat_cached_reasoning", "chat", "gpt-5-mini-2025-08-07", mtok("0.25", 86) + mtok("0.025", 1920) + mtok("2", 300)),
    (
        "chat_cache_write",
        "chat",
        "gpt-5.6-terra",
        mtok("2", 1928) + mtok("0.2", 1024) + mtok("2.5", 2048) + mtok("12", 100),
    ),
    ("chat_cache_write", "chat", "gpt-5.5", mtok("5", 1928) + mtok("0.5", 1024) + mtok("5", 2048) + mtok("30", 100)),
    ("chat_audio", "chat", "gpt-audio", mtok("2.5", 20) + mtok("32", 95) + mtok("64", 200) + mtok("10", 50)),
    (
        "chat_audio",
        "chat",
        "gpt-4o-mini-audio-preview-2024-12-17",
        mtok("0.15", 20) + mtok("10", 95) + mtok("20", 200) + mtok("0.6", 50),
    ),
    ("chat_prediction", "chat", "gpt-4.1", mtok("2", 60) + mtok("8", 90)),
    ("responses", "responses", "gpt-6-luna", mtok("0.1", 36) + mtok("0.5", 87)),
    (
        "responses_cache_split",
        "responses",
        "gpt-6.1-sol",
        mtok("2", 4832) + mtok("0.1", 4096) + mtok("2.5", 2048) + mtok("5", 1024) + mtok("10", 800),
    ),
    ("responses_at_272000", "responses", "gpt-5.4", mtok("2.5", 72_000) + mtok("0.25", 200_000) + mtok("15", 1000)),
    ("responses_over_272000", "responses", "gpt-5.4", mtok("5", 72_001) + mtok("0.5", 200_000) + mtok("22.5", 1000)),
    ("responses_over_272000", "responses", "gpt-4.1", mtok("2", 72_001) + mtok("0.5", 200_000) + mtok("8", 1000)),
    ("embeddings", "embeddings", "text-embedding-3-small", mtok("0.02", 8)),
    ("embeddings", "embeddings", "text-embedding-3-large", mtok("0.13", 8)),
    ("completions_empty", "completions", "gpt-3.5-turbo-instruct:20230824-v2", mtok("1.5", 11)),
    ("empty_details", "completions", "gpt-3.5-turbo-instruct", mtok("1.5", 10) + mtok("2", 5)),
    ("responses", "decisions", "gpt-6-luna", mtok("0.1", 36)),
    ("chat", "chat", "ft:gpt-4o-mini-2024-07-18:acme::abc", mtok("0.3", 1117) + mtok("1.2", 46)),
]


@pytest.mark.parametrize(("body", "endpoint", "model", "expected"), GOLDEN)
def test_golden_bodies(book: Book, body: str, endpoint: str, model: str, expected: Decimal) -> None:
    assert usd(ask(book, model, golden(body), endpoint=endpoint)) == expected


TIERS: list[tuple[str, str | None, str, str]] = [
    ("gpt-5.5", None, "5", "30"),
    ("gpt-5.5", "default", "5", "30"),
    ("gpt-5.5", "flex", "2.5", "15"),
    ("gpt-5.5", "priority", "12.5", "75"),
    ("gpt-5.5", "fast", "12.5", "75"),
    ("gpt-4o", "priority", "4.25", "17"),
    ("gpt-4.1", "priority", "3.5", "14"),
    ("o3", "flex", "1", "4"),
    ("gpt-6-astra", "ultrafast", "60", "300"),
    ("gpt-6.2-sol", "priority", "4", "20"),
    ("gpt-6.2-astra", "default", "8", "40"),
    ("gpt-5.6-luna", "priority", "0.4", "2.4"),
]


@pytest.mark.parametrize(("model", "tier", "in_rate", "out_rate"), TIERS)
def test_tiers(book: Book, model: str, tier: str | None, in_rate: str, out_rate: str) -> None:
    priced = ask(book, model, chat(1000, 200), service_tier=tier)
    assert usd(priced) == mtok(in_rate, 1000) + mtok(out_rate, 200)


def test_batch_and_completion_windows(book: Book) -> None:
    assert usd(ask(book, "gpt-5.6-luna", chat(100, 10), batch=True)) == mtok("0.1", 100) + mtok("0.6", 10)
    again = ask(book, "gpt-5.6-luna", chat(100, 10), batch=True, completion_window="24h", service_tier="default")
    assert usd(again) == mtok("0.1", 100) + mtok("0.6", 10)
    usage = responses(1000, 100)
    two = ask(book, "gpt-6.2-sol", usage, endpoint="responses", completion_window="2h")
    eight = ask(book, "gpt-6.2-sol", usage, endpoint="responses", completion_window="8h")
    assert (usd(two), usd(eight)) == (mtok("1.4", 1000) + mtok("7", 100), mtok("1.2", 1000) + mtok("6", 100))


DATED: list[tuple[str, str | None, datetime, str, str]] = [
    ("gpt-5.6-sol", None, datetime(2026, 8, 20, 23, 59, 59, tzinfo=UTC), "5", "30"),
    ("gpt-5.6-sol", None, datetime(2026, 8, 21, tzinfo=UTC), "4", "20"),
    ("gpt-5.6-sol", None, PROMO_END - timedelta(microseconds=1), "4", "20"),
    ("gpt-5.6-sol", None, PROMO_END, "5", "30"),
    ("gpt-5.6-sol", "priority", PROMO_END, "10", "60"),
    ("gpt-5.6-luna", None, datetime(2026, 7, 29, 23, tzinfo=UTC), "1", "6"),
    ("gpt-5.6-luna", None, datetime(2026, 7, 30, tzinfo=UTC), "0.2", "1.2"),
    ("gpt-5.6-terra", None, datetime(2026, 7, 10, tzinfo=UTC), "2.5", "15"),
    ("gpt-5.6-terra", None, datetime(2026, 7, 30, tzinfo=UTC), "2", "12"),
    ("gpt-6.2-sol", "ultrafast", ULTRAFAST_END - timedelta(seconds=1), "6", "30"),
    ("gpt-6.2-sol", "ultrafast", ULTRAFAST_END, "12", "60"),
    ("o3", None, datetime(2025, 6, 9, tzinfo=UTC), "10", "40"),
    ("o3", None, datetime(2025, 6, 10, tzinfo=UTC), "2", "8"),
    ("gpt-6.2-sol", None, datetime(2020, 1, 1, tzinfo=UTC), "2", "10"),
]


@pytest.mark.parametrize(("model", "tier", "at", "in_rate", "out_rate"), DATED)
def test_dated_prices(book: Book, model: str, tier: str | None, at: datetime, in_rate: str, out_rate: str) -> None:
    priced = ask(book, model, chat(1000, 200), at=at, service_tier=tier)
    assert usd(priced) == mtok(in_rate, 1000) + mtok(out_rate, 200)


def test_an_offset_is_the_same_instant(book: Book) -> None:
    local = datetime.fromisoformat("2026-11-22T01:30:00+02:00")
    assert usd(ask(book, "gpt-5.6-sol", chat(1000, 0), at=local)) == mtok("4", 1000)


def test_doubt_is_told(book: Book) -> None:
    before = ask(book, "gpt-5.6-sol", chat(1000, 200), at=BEFORE_PROMO_END)
    after = ask(book, "gpt-5.6-sol", chat(1000, 200), at=PROMO_END)
    assert (before.low_confidence, before.problems) == (False, ())
    assert after.low_confidence
    assert after.problems == ("low confidence in the price of gpt-5.6-sol: input_tokens, output_tokens",)


def test_doubt_about_one_class_is_told_only_when_it_is_used(book: Book) -> None:
    assert not ask(book, "gpt-4.1", chat(100, 10), batch=True).low_confidence
    cached = ask(book, "gpt-4.1", chat(100, 10, cached_tokens=50), batch=True)
    assert cached.low_confidence
    assert usd(cached) == mtok("1", 50) + mtok("1", 50) + mtok("4", 10)


def test_cached_input_without_a_published_discount_costs_what_input_costs(book: Book) -> None:
    priced = ask(book, "gpt-5.4-pro", responses(100, 10, cached_tokens=40), endpoint="responses")
    assert usd(priced) == mtok("30", 100) + mtok("180", 10)
    assert priced.low_confidence


@pytest.mark.parametrize(
    ("model", "factor", "low"), [("gpt-5.5", "1.1", False), ("gpt-6.2-sol", "1.1", True), ("gpt-4o", "1", False)]
)
@pytest.mark.parametrize("region", ["us", "eu", "ae", "au", "in", "jp"])
def test_regional_surcharge(book: Book, region: str, model: str, factor: str, low: bool) -> None:
    here = ask(book, model, chat(1000, 200), region=region)
    assert usd(here) == usd(ask(book, model, chat(1000, 200))) * Decimal(factor)
    assert here.low_confidence is low


def test_priority_with_long_context(book: Book) -> None:
    new = ask(book, "gpt-5.6-terra", responses(272_001, 10), endpoint="responses", service_tier="priority")
    assert usd(new) == mtok("8", 272_001) + mtok("36", 10)
    old = ask(book, "gpt-5.5", responses(272_001, 10), endpoint="responses", service_tier="priority")
    assert usd(old) == mtok("12.5", 272_001) + mtok("75", 10)
    assert old.low_confidence


def test_search_models_cost_a_search_per_chat_request(book: Book) -> None:
    assert usd(ask(book, "gpt-4o-search-preview", chat(100, 10))) == mtok("2.5", 100) + mtok("10", 10) + Decimal(
        "0.025"
    )
    assert usd(ask(book, "gpt-5-search-api", chat(100, 10))) == mtok("1.25", 100) + mtok("10", 10) + Decimal("0.01")


def test_lines_are_exact_and_add_up_before_the_one_rounding(book: Book) -> None:
    priced = ask(book, "gpt-4.1-nano", chat(3, 1, cached_tokens=1), service_tier="default")
    assert [msgspec.structs.astuple(line) for line in priced.lines] == [
        ("input_tokens", "2", "0.0000001", "0.0000002"),
        ("cached_input_tokens", "1", "0.000000025", "0.000000025"),
        ("output_tokens", "1", "0.0000004", "0.0000004"),
    ]
    assert priced.cost_nano == 625
    tie = ask(
        book,
        "gpt-5-nano",
        {"prompt_tokens": 1, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 1}},
        batch=True,
    )
    assert (tie.lines[0].usd, tie.cost_nano) == ("0.0000000025", 2)
    assert nano_text(tie.cost_nano or 0) == "0.000000002"


UNPRICED: list[tuple[dict[str, Any], str]] = [
    ({"model": "gpt-99"}, "model 'gpt-99' is not in the price book"),
    ({"model": "gpt-6.2-astra-law"}, "not in the price book"),
    ({"service_tier": "scale"}, "scale is prepaid"),
    ({"service_tier": "turbo"}, "service_tier 'turbo' has no price"),
    ({"service_tier": ""}, "service_tier '' has no price"),
    ({"model": "gpt-6.2-sol", "service_tier": "flex"}, "no 'flex' price"),
    ({"service_tier": "ultrafast"}, "no 'ultrafast' price"),
    ({"batch": True, "service_tier": "priority"}, "batch cannot be priced as service_tier 'priority'"),
    ({"batch": True, "completion_window": "2h"}, "batch cannot be priced"),
    ({"completion_window": "3h"}, "completion_window '3h'"),
    ({"completion_window": "24h"}, "completion_window '24h'"),
    ({"completion_window": "2h", "service_tier": "flex"}, "in service_tier 'flex'"),
    ({"completion_window": "2h"}, "no 'background_2h' price"),
    ({"region": "mars"}, "region 'mars'"),
    ({"cache_ttl": "7d"}, "cache_ttl '7d'"),
    ({"cache_ttl": ""}, "cache_ttl is empty"),
    ({"endpoint": "audio"}, "endpoint 'audio' is not priced"),
    ({"endpoint": "decisions"}, "no 'decisions' price"),
    ({"at": datetime(2026, 11, 22)}, "no offset"),  # noqa: DTZ001
]


@pytest.mark.parametrize(("change", "message"), UNPRICED)
def test_what_the_book_cannot_price(book: Book, change: dict[str, Any], message: str) -> None:
    request = {"endpoint": "chat", "model": "gpt-5.5", "at": NOW, **change}
    priced = price(book, PriceRequest(usage=b'{"prompt_tokens":7,"completion_tokens":2}', **request))
    assert (priced.cost_nano, priced.evidence, priced.lines) == (None, "unpriced", ())
    assert message in priced.problems[0]
    assert (priced.prompt_tokens, priced.completion_tokens, priced.total_tokens) == (7, 2, 9)


def test_a_class_without_a_rate_is_unpriced_and_named(book: Book) -> None:
    audio = ask(book, "gpt-4o", chat(10, 1, audio_tokens=5))
    assert audio.problems == ("model 'gpt-4o' has no price for audio_input tokens",)
    assert (audio.cost_nano, audio.prompt_tokens) == (None, 10)
    embedding = ask(book, "text-embedding-3-small", chat(10, 1), endpoint="embeddings")
    assert "output tokens" in embedding.problems[0]


def test_bad_usage_is_unpriced_and_names_the_fields(book: Book) -> None:
    priced = ask(book, "gpt-4o", chat(10, 1, cached_tokens=11))
    assert priced.evidence == "unpriced"
    assert "cached_tokens" in priced.problems[0]
    assert "prompt_tokens" in priced.problems[0]
    assert (priced.prompt_tokens, priced.completion_tokens, priced.total_tokens) == (10, 1, 11)
    both = ask(book, "gpt-99", None)
    assert both.problems == ("model 'gpt-99' is not in the price book", "usage is missing")


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-99"])
@pytest.mark.parametrize("field", ["5", "1e999999", "9" * 5000, '{"a":[2]}', "[" * 5000 + "1" + "]" * 5000])
def test_an_unknown_field_is_unpriced_and_hides_no_count(book: Book, model: str, field: str) -> None:
    usage = b'{"prompt_tokens":8,"completion_tokens":5,"total_tokens":13,"zz":%b}' % field.encode()
    priced = price(book, PriceRequest("chat", model, NOW, usage))
    assert (priced.cost_nano, priced.evidence, priced.lines) == (None, "unpriced", ())
    assert (priced.prompt_tokens, priced.completion_tokens, priced.total_tokens) == (8, 5, 13)


def test_moderation_is_free_even_without_usage(book: Book) -> None:
    for usage in (None, {"prompt_tokens": 5, "total_tokens": 5}):
        priced = ask(book, "omni-moderation-latest", usage, endpoint="moderations")
        assert (priced.cost_nano, priced.evidence, priced.lines) == (0, "reported", ())


@given(st.binary(max_size=40))
def test_no_bytes_raise(book: Book, raw: bytes) -> None:
    priced = price(book, PriceRequest("chat", "gpt-4o", NOW, raw, response=raw))
    assert (priced.evidence == "unpriced") == (priced.cost_nano is None)


GAPPED = """
[source.s]
what = "a page"
[rules]
source = "s"
checked = 2026-01-01
default_max_output_tokens = 10
regional_multiplier = 1.1
regions = ["eu"]
regional_released_from = 2026-03-05
default_image_model = "m"
[[fee]]
id = "f"
usd = 1
until = 2026-01-01T00:00:00Z
source = "s"
checked = 2026-01-01
[[model]]
id = "m"
request_fee = "f"
[[model.price]]
from = 2025-01-01T00:00:00Z
source = "s"
checked = 2026-01-01
default = { input = 1, output = 2 }
"""


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (datetime(2024, 12, 31, tzinfo=UTC), "model 'm' has no price at 2024-12-31"),
        (datetime(2026, 1, 1, tzinfo=UTC), "the book has no fee 'f' at 2026-01-01"),
    ],
)
def test_a_gap_in_the_book_is_unpriced(at: datetime, message: str) -> None:
    book = parse({"a.toml": GAPPED})
    priced = ask(book, "m", chat(3, 4), at=at)
    assert priced.cost_nano is None
    assert message in priced.problems[0]
    counts: dict[str, Any] = {"input_tokens": 3, "output_tokens": 4, "input_bound": 3, "output_bound": 4}
    guessed = estimate(book, endpoint="chat", model="m", at=at, service_tier=None, **counts)
    assert guessed.bound_nano is None
    assert message in guessed.problems[0]


def test_the_fee_of_another_period_is_not_used() -> None:
    book = parse({"a.toml": GAPPED})
    assert usd(ask(book, "m", chat(0, 0), at=datetime(2025, 6, 1, tzinfo=UTC))) == 1
