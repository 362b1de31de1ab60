"""Every way a call is valued: evidence, cost, what is billed, and a bound that never lies below the cost."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pricing
from gateway.usage.event import OpenRecord, UsageEvent, decode_event, encode
from gateway.usage.settle import MEDIA_TOKENS, Settler, Tokens, is_unknown
from pricing.data import read_texts
from pricing.readers.body import Said

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LATER = AT + timedelta(seconds=3)
BOOK = pricing.parse(read_texts())
USAGE = b'{\n  "prompt_tokens": 1000,\n  "completion_tokens": 200,\n  "total_tokens": 1200\n}'
KEPT = b'{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200}'
MODEL = "gpt-5-mini-2025-08-07"


def settler(*, markup: str = "1", bill_estimates: bool = True, region: str | None = None) -> Settler:
    return Settler(BOOK, markup=Decimal(markup), bill_estimates=bill_estimates, region=region)


def opened(**changes: Any) -> OpenRecord:
    fields: dict[str, Any] = {
        "id": "019aab00-0000-7000-8000-000000000001",
        "user_id": "u",
        "endpoint": "chat",
        "model": "gpt-5-mini",
        "started_at": AT,
        "api_key_id": "k",
        "meeting_id": "m",
        "text_bytes": 4001,
        "metadata": {"client_request_id": "mine"},
    }
    return OpenRecord(**{**fields, **changes})


def said(**changes: Any) -> Said:
    return Said(**{"response_id": "chatcmpl-1", "model": MODEL, "service_tier": "default", "usage": USAGE, **changes})


def nano(text: str) -> int:
    return int(Decimal(text) * 10**9)


def cost(input_tokens: int, output_tokens: int, markup: str = "1") -> int:
    """gpt-5-mini: 0.25 and 2 USD per million tokens."""
    return int(Decimal(markup) * (input_tokens * 250 + output_tokens * 2000))


def test_reported() -> None:
    event = settler().settle_exact(opened(), said(), LATER, request_id="req_1")
    assert (event.evidence, event.cost_nano, event.billed_nano) == ("reported", cost(1000, 200), cost(1000, 200))
    assert (event.prompt_tokens, event.completion_tokens, event.total_tokens) == (1000, 200, 1200)
    assert (event.model, event.response_id, event.request_id) == (MODEL, "chatcmpl-1", "req_1")
    assert (event.started_at, event.completed_at) == (AT, LATER)
    assert (event.user_id, event.api_key_id, event.meeting_id) == ("u", "k", "m")
    assert bytes(event.usage) == KEPT  # on one line, as a record must be
    assert event.price_version == BOOK.version
    assert event.metadata == {
        "client_request_id": "mine",
        "requested_model": "gpt-5-mini",
        "billable": {"model": MODEL, "service_tier": "default"},
    }
    assert decode_event(encode(event)).usage == event.usage


def test_drained_region_and_ttl() -> None:
    event = settler(region="eu").settle_exact(opened(model=MODEL, cache_ttl="12h"), said(), LATER, drained=True)
    assert event.evidence == "drained"
    assert event.metadata["billable"] == {
        "model": MODEL, "service_tier": "default", "region": "eu", "cache_ttl": "12h"
    }  # fmt: skip
    assert "requested_model" not in event.metadata


@pytest.mark.parametrize(("markup", "billed"), [("1.25", 812_500), ("0", 0), ("1.0000005", 650_000), ("2", 1_300_000)])
def test_markup(markup: str, billed: int) -> None:
    event = settler(markup=markup).settle_exact(opened(), said(), LATER)
    assert (event.cost_nano, event.billed_nano) == (650_000, billed)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "gpt-99-unheard"},
        {"service_tier": "platinum"},
        {"usage": b'{"prompt_tokens":-1,"completion_tokens":1,"total_tokens":0}'},
        {"usage": b'{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"surprise_tokens":4}'},
        {"usage": b"{}"},
    ],
)
def test_unpriced(changes: dict[str, Any]) -> None:
    event = settler().settle_exact(opened(), said(**changes), LATER)
    assert (event.evidence, event.cost_nano, event.billed_nano) == ("unpriced", None, None)
    assert event.metadata["problems"]
    assert bytes(event.usage) == changes.get("usage", KEPT)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "gpt-99-unheard"},
        {"service_tier": "platinum"},
        {"usage": USAGE[:-1] + b', "zz": 5}'},
        {"usage": USAGE[:-1] + b', "zz": 1e999999}'},
        {"usage": USAGE[:-1] + b', "prompt_tokens_details": {"cached_tokens": -1}}'},
        {"usage": USAGE[:-1] + b', "prompt_tokens_details": {"cached_tokens": 1001}}'},
        {"usage": USAGE[:-1] + b', "completion_tokens_details": {"new_tokens": 3}}'},
    ],
)
def test_what_has_no_price_has_its_tokens(changes: dict[str, Any]) -> None:
    event = settler().settle_exact(opened(), said(**changes), LATER)
    assert (event.evidence, event.cost_nano, event.billed_nano) == ("unpriced", None, None)
    assert (event.prompt_tokens, event.completion_tokens, event.total_tokens) == (1000, 200, 1200)
    assert event.metadata["problems"]


def test_an_estimate_keeps_what_was_asked_for() -> None:
    record = opened(service_tier="flex", cache_ttl="12h")
    cut = settler().settle_unfinished(settler().settle_exact(record, said(), LATER), record, "x")
    for event in (cut, settler().settle_estimated(record, Said(), LATER, "x", Tokens(1, 1))):
        assert (event.metadata["service_tier_asked"], event.metadata["cache_ttl_asked"]) == ("flex", "12h")
    plain = settler().settle_estimated(opened(), Said(), LATER, "x", Tokens(1, 1))
    assert not [name for name in plain.metadata if name.endswith("_asked")]


@pytest.mark.parametrize(
    ("asked", "priced_as"), [(None, "default"), ("auto", "default"), ("default", "default"), ("flex", "flex")]
)
def test_a_finished_answer_that_says_auto_costs_what_was_asked_for(asked: str | None, priced_as: str) -> None:
    event = settler().settle_exact(opened(service_tier=asked), said(service_tier="auto"), LATER)
    known = settler().settle_exact(opened(), said(service_tier=priced_as), LATER)
    assert (event.evidence, event.service_tier) == ("reported", "auto")
    assert (event.cost_nano, event.cost_lines) == (known.cost_nano, known.cost_lines)
    assert "'auto'" in event.metadata["problems"][0]
    assert event.metadata["billable"]["service_tier"] == (asked or "auto")


@pytest.mark.parametrize(("asked", "priced_as"), [(None, "default"), ("auto", "default"), ("priority", "priority")])
def test_a_tier_and_a_model_that_were_not_found_are_those_asked_for(asked: str | None, priced_as: str) -> None:
    record, found = opened(service_tier=asked, model=MODEL), said(service_tier=None, model=None, unsure=True)
    event = settler().settle_exact(record, found, LATER)
    known = settler().settle_exact(opened(), said(service_tier=priced_as), LATER)
    assert (event.evidence, event.service_tier, event.cost_nano) == ("reported", None, known.cost_nano)
    assert [problem.partition(" was not found")[1] != "" for problem in event.metadata["problems"][:2]] == [True, True]


def test_what_an_answer_does_not_say_is_default() -> None:
    event = settler().settle_exact(opened(service_tier="flex"), said(service_tier=None), LATER)
    assert event.cost_nano == cost(1000, 200)
    assert "problems" not in event.metadata


def test_an_estimate_after_auto_goes_by_what_was_asked_for() -> None:
    auto = settler().settle_estimated(
        opened(service_tier="flex"), Said(service_tier="auto"), LATER, "x", Tokens(900, 30)
    )
    flex = settler().settle_estimated(opened(service_tier="flex"), Said(), LATER, "x", Tokens(900, 30))
    assert auto.cost_nano == flex.cost_nano != cost(900, 30)


def test_a_bug_in_pricing_does_not_lose_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pricing, "price", broken)
    monkeypatch.setattr(pricing, "estimate", broken)
    exact = settler().settle_exact(opened(), said(), LATER)
    estimated = settler().settle_estimated(opened(), Said(), LATER, "x", Tokens(1, 1))
    for event in (exact, estimated):
        assert (event.evidence, event.cost_nano, event.billed_nano) == ("unpriced", None, None)
        assert event.metadata["problems"] == ["pricing failed: ZeroDivisionError"]
    assert bytes(exact.usage) == KEPT
    assert (exact.prompt_tokens, exact.completion_tokens, exact.total_tokens) == (1000, 200, 1200)


def test_void() -> None:
    event = settler(markup="3").settle_void(opened(), LATER, "http_429", request_id="r", metadata={"status": 429})
    assert (event.evidence, event.cost_nano, event.billed_nano) == ("void", 0, 0)
    assert event.metadata == {"client_request_id": "mine", "status": 429, "void_reason": "http_429"}
    assert (event.model, event.prompt_tokens, event.response_id) == ("gpt-5-mini", None, None)


def test_estimated() -> None:
    event = settler().settle_estimated(
        opened(output_cap=500, choices=2), Said(), LATER, "upstream_cut", Tokens(900, 30)
    )
    assert (event.evidence, event.cost_nano, event.billed_nano) == ("estimated", cost(900, 30), cost(900, 30))
    assert (event.prompt_tokens, event.completion_tokens, event.total_tokens) == (900, 30, 930)
    assert event.metadata["reason"] == "upstream_cut"
    assert nano(event.metadata["bound_usd"]) >= cost(4001, 1000)
    assert encode(event).find(b'"usage"') < 0
    free = settler(bill_estimates=False).settle_estimated(opened(), Said(), LATER, "x", Tokens(900, 30))
    assert (free.cost_nano, free.billed_nano) == (cost(900, 30), 0)


def test_the_bound_of_an_estimate_knows_the_model_s_own_limit() -> None:
    def bound(**changes: Any) -> int:
        event = settler().settle_estimated(opened(**changes), Said(), LATER, "x", Tokens(1, 1))
        return nano(event.metadata["bound_usd"])

    most = BOOK.max_output_tokens("gpt-5-mini")
    assert bound() == bound(output_cap=10**12) == bound(output_cap=most)
    assert bound(output_cap=10) < bound()
    assert bound(choices=2) > bound()
    assert bound(media_parts=3) > bound()
    assert bound(service_tier="auto") >= bound(service_tier="priority") > bound()


def test_an_estimate_of_an_unknown_model_is_unpriced() -> None:
    event = settler().settle_estimated(opened(model="gpt-99"), Said(), LATER, "x", Tokens(5, 6))
    assert (event.evidence, event.cost_nano, event.billed_nano) == ("unpriced", None, None)
    assert event.metadata["bound_usd"] is None
    assert event.total_tokens == 11


def test_an_estimate_of_embeddings_has_no_output() -> None:
    record = opened(endpoint="embeddings", model="text-embedding-3-small", text_bytes=4000)
    event = settler().settle_estimated(record, Said(), LATER, "x", settler().by_bytes(record, 0))
    assert (event.prompt_tokens, event.completion_tokens) == (1000, 0)
    assert event.cost_nano == 20_000
    assert nano(event.metadata["bound_usd"]) == 80_000


def test_unfinished() -> None:
    for bill, billed in ((True, cost(1000, 200)), (False, 0)):
        valuer = settler(bill_estimates=bill)
        event = valuer.settle_unfinished(valuer.settle_exact(opened(), said(), LATER), opened(), "upstream_cut")
        assert (event.evidence, event.cost_nano, event.billed_nano) == ("estimated", cost(1000, 200), billed)
        assert event.metadata["reason"] == "upstream_cut"
        assert nano(event.metadata["bound_usd"]) >= cost(4001, 200)
        assert bytes(event.usage) == KEPT
    unpriced = settler().settle_exact(opened(), said(model="gpt-99"), LATER)
    assert settler().settle_unfinished(unpriced, opened(), "x") == unpriced


def test_by_bytes() -> None:
    assert settler().by_bytes(opened(text_bytes=9, media_parts=2), 7) == Tokens(3 + 2 * MEDIA_TOKENS, 7)


def consistent(event: UsageEvent) -> bool:
    return (event.cost_nano is None) == (event.billed_nano is None) == (event.evidence == "unpriced")


@given(
    st.sampled_from(["chat", "responses", "embeddings"]),
    st.sampled_from(["gpt-5-mini", "gpt-5", "gpt-4o", "text-embedding-3-small", "gpt-99", "gpt-5.6-sol"]),
    st.sampled_from([None, "default", "priority", "flex", "auto", "odd"]),
    st.none() | st.integers(0, 10**15),
    st.integers(1, 128),
    st.integers(0, 10**7),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_a_bound_is_never_below_its_cost(
    endpoint: str, model: str, tier: str | None, cap: int | None, n: int, text: int, tokens_in: int, tokens_out: int
) -> None:
    record = opened(endpoint=endpoint, model=model, service_tier=tier, output_cap=cap, choices=n, text_bytes=text)
    usage = b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
        tokens_in, tokens_out, tokens_in + tokens_out
    )  # fmt: skip
    valuer = settler(markup="1.3")
    estimated = valuer.settle_estimated(record, Said(), LATER, "x", Tokens(tokens_in, tokens_out))
    exact = valuer.settle_exact(record, said(model=model, service_tier="priority", usage=usage), LATER)
    for event in (estimated, valuer.settle_unfinished(exact, record, "x")):
        assert consistent(event)
        if event.cost_nano is not None and event.metadata["bound_usd"] is not None:
            assert nano(event.metadata["bound_usd"]) >= event.cost_nano
        assert decode_event(encode(event)) == event


@pytest.mark.parametrize(("cap", "counted"), [(None, 32_000), (1000, 250), (10, 30)])
def test_what_a_reasoning_model_wrote_unseen_is_a_share_of_the_most(cap: int | None, counted: int) -> None:
    record = opened(model="gpt-5-mini", output_cap=cap)
    for share, expected in ((Decimal("0.25"), counted), (Decimal(0), 30)):
        valuer = Settler(BOOK, markup=Decimal("1.5"), bill_estimates=True, region=None, unseen_share=share)
        event = valuer.settle_estimated(record, Said(), LATER, "drain_limit", Tokens(900, 30), hides_output=True)
        assert (event.completion_tokens, event.cost_nano) == (expected, cost(900, expected))
        assert event.billed_nano == cost(900, expected) * 3 // 2
        assert sum(Decimal(line.usd) for line in event.cost_lines) == Decimal(event.cost_nano or 0).scaleb(-9)
        assert is_unknown(event)
        assert nano(event.metadata["bound_usd"]) >= (event.cost_nano or 0)
    seen = valuer.settle_estimated(record, Said(), LATER, "usage_missing", Tokens(900, 30))
    assert (seen.completion_tokens, is_unknown(seen)) == (30, False)
    plain = valuer.settle_estimated(opened(model="gpt-4o"), Said(), LATER, "x", Tokens(9, 3), hides_output=True)
    assert (plain.completion_tokens, is_unknown(plain)) == (3, False)
