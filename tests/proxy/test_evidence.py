"""Every end of a call and the evidence that its row claims, as one table; and what the book makes of it."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest

import pricing
from gateway.proxy.evidence import BodyEnd, Decision, End, Interrupted, NoAnswer, StreamEnd, decide_evidence
from gateway.proxy.relay_result import RelayResult
from gateway.usage.event import OpenRecord, UsageEvent
from gateway.usage.settle import Settler, Tokens
from pricing.data import read_texts
from pricing.readers.body import Said
from pricing.stream import StreamMeter

AT: Final = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
BOOK: Final = pricing.parse(read_texts())
BROKEN: Final = ("upstream_cut", "upstream_timeout", "drain_limit")


def stream(*, usage: bool, terminal: bool, **more: Any) -> StreamEnd:
    return StreamEnd(usage, terminal, **more)


def reported(*marks: str) -> Decision:
    return Decision("reported", "openai", marks=marks)


def drained(*marks: str) -> Decision:
    return Decision("drained", "openai", marks=marks)


def counted(reason: str) -> Decision:
    """OpenAI never said."""
    return Decision("estimated", "counted", reason, shows_status=True)


def unfinished(reason: str) -> Decision:
    """OpenAI said, but not to the end."""
    return Decision("estimated", "unfinished", reason, shows_status=True)


def void(status: int) -> Decision:
    return Decision("void", "none", f"http_{status}", shows_status=True)


CASES: Final[tuple[tuple[End, Decision], ...]] = (
    # No head of an answer.
    (NoAnswer(code=None), Decision("void", "none", "not_sent")),
    (NoAnswer("upstream_timeout"), counted("upstream_timeout")),
    (NoAnswer("upstream_cut"), counted("upstream_cut")),
    # A stream that said what was used.
    (stream(usage=True, terminal=True), reported()),
    (stream(usage=True, terminal=True, client_left=True), drained()),
    (stream(usage=True, terminal=True, failed=True), reported("failed")),
    (stream(usage=True, terminal=True, failed=True, client_left=True), drained("failed")),
    (stream(usage=True, terminal=False), reported("unterminated")),
    (stream(usage=True, terminal=False, client_left=True), drained("unterminated")),
    (stream(usage=True, terminal=False, failed=True), reported("failed", "unterminated")),
    (stream(usage=True, terminal=True, unread="coded_damaged"), reported()),
    # … but not to its end.
    (stream(usage=True, terminal=False, broken="upstream_cut"), unfinished("upstream_cut")),
    (stream(usage=True, terminal=False, broken="upstream_timeout"), unfinished("upstream_timeout")),
    (stream(usage=True, terminal=False, broken="drain_limit", client_left=True), unfinished("drain_limit")),
    (stream(usage=True, terminal=False, broken="upstream_cut", failed=True), unfinished("upstream_cut")),
    (stream(usage=True, terminal=False, overflow=True), unfinished("no_terminal_event")),
    (stream(usage=True, terminal=False, overflow=True, failed=True), unfinished("stream_failed")),
    (stream(usage=True, terminal=True, overflow=True), unfinished("usage_missing")),
    (stream(usage=True, terminal=True, overflow=True, failed=True), unfinished("stream_failed")),
    # A stream that did not.
    (stream(usage=False, terminal=True), counted("usage_missing")),
    (stream(usage=False, terminal=True, client_left=True), counted("usage_missing")),
    (stream(usage=False, terminal=True, unread="coded_br"), counted("usage_missing")),
    (stream(usage=False, terminal=True, failed=True), counted("stream_failed")),
    (stream(usage=False, terminal=True, failed=True, unread="coded_damaged"), counted("coded_damaged")),
    (stream(usage=False, terminal=False), counted("no_terminal_event")),
    (stream(usage=False, terminal=False, failed=True), counted("stream_failed")),
    (stream(usage=False, terminal=False, overflow=True), counted("no_terminal_event")),
    (stream(usage=False, terminal=False, unread="coded_br"), counted("coded_br")),
    (stream(usage=False, terminal=False, broken="upstream_cut", unread="coded_br"), counted("upstream_cut")),
    *((stream(usage=False, terminal=False, broken=why), counted(why)) for why in BROKEN),
    # A body with its usage.
    (BodyEnd(200, usage=True, complete=True), reported()),
    (BodyEnd(200, usage=True, complete=True, client_left=True), drained()),
    (BodyEnd(200, usage=True, complete=True, unread="coded_damaged"), reported()),
    *((BodyEnd(200, usage=True, broken=why), unfinished(why)) for why in BROKEN),
    (BodyEnd(201, usage=True, complete=True), unfinished("http_201")),
    # A body without.
    (BodyEnd(200, complete=True), counted("usage_missing")),
    (BodyEnd(200, complete=True, client_left=True), counted("usage_missing")),
    (BodyEnd(200, complete=True, is_error=True), counted("usage_missing")),
    (BodyEnd(200, complete=True, unread="coded_zstd"), counted("coded_zstd")),
    (BodyEnd(200, broken="upstream_cut", unread="coded_zstd"), counted("upstream_cut")),
    *((BodyEnd(200, broken=why), counted(why)) for why in BROKEN),
    (BodyEnd(302, complete=True), counted("http_302")),
    # Any 4xx did not run, whatever became of its body; of a 401 the body is not read.
    *((BodyEnd(status, complete=True, is_error=True), void(status)) for status in (400, 403, 404, 429, 499)),
    (BodyEnd(401), void(401)),
    (BodyEnd(429, broken="upstream_cut"), void(429)),
    (BodyEnd(400, usage=True, complete=True), void(400)),
    # OpenAI's own error under 500 and 503 did not run. Another server's page, or another status, may have.
    (BodyEnd(500, complete=True, is_error=True), void(500)),
    (BodyEnd(503, complete=True, is_error=True), void(503)),
    (BodyEnd(503, is_error=True, broken="upstream_cut"), void(503)),
    (BodyEnd(500, complete=True), counted("http_500")),
    (BodyEnd(503, complete=True), counted("http_503")),
    (BodyEnd(500, complete=True, unread="coded_br"), counted("coded_br")),
    (BodyEnd(500, broken="upstream_timeout"), counted("upstream_timeout")),
    (BodyEnd(500, usage=True, complete=True), unfinished("http_500")),
    *((BodyEnd(status, complete=True, is_error=True), counted(f"http_{status}")) for status in (502, 504, 520)),
    # The gateway's own end.
    (Interrupted(usage=False), counted("gateway_interrupted")),
    (Interrupted(usage=True), unfinished("gateway_interrupted")),
    (Interrupted(usage=False, estimate_failed=True), Decision("estimated", "open_record", "gateway_interrupted")),
    (Interrupted(usage=True, estimate_failed=True), Decision("estimated", "open_record", "gateway_interrupted")),
)


@pytest.mark.parametrize(("end", "decision"), CASES)
def test_an_end_is_this_evidence(end: End, decision: Decision) -> None:
    assert decide_evidence(end) == decision


def every_end() -> list[End]:
    """Every combination of what can be known of an end."""
    flags = (False, True)
    breaks, unreads, statuses = (None, *BROKEN), (None, "coded_br"), (200, 201, 302, 400, 401, 429, 500, 502, 503)
    ends: list[End] = [
        NoAnswer(None),
        *map(NoAnswer, BROKEN),
        *itertools.starmap(Interrupted, itertools.product(flags, flags)),
    ]
    ends += itertools.starmap(StreamEnd, itertools.product(flags, flags, flags, flags, breaks, unreads, flags))
    ends += itertools.starmap(BodyEnd, itertools.product(statuses, flags, flags, flags, breaks, unreads, flags))
    return ends


@pytest.mark.parametrize("evidence", ["reported", "drained", "estimated", "void"])
def test_what_each_evidence_promises(evidence: str) -> None:
    ends = [end for end in every_end() if decide_evidence(end).evidence == evidence]
    assert ends
    for end in ends:
        decision = decide_evidence(end)
        if evidence in ("reported", "drained"):
            assert isinstance(end, StreamEnd | BodyEnd)
            assert end.usage
            assert end.broken is None or (isinstance(end, BodyEnd) and end.complete)
            assert end.client_left is (evidence == "drained")
            assert decision.reason is None
        elif evidence == "void":
            assert isinstance(end, BodyEnd) or end == NoAnswer(None)
            assert not isinstance(end, BodyEnd) or 400 <= end.status <= 503
        else:
            assert decision.reason


def test_the_end_of_an_answer_is_what_the_relay_saw() -> None:
    whole, streamed = RelayResult(), RelayResult()
    assert whole.describe_end(401) == BodyEnd(401)
    whole.said = Said(usage=b"{}")
    whole.complete, whole.is_error, whole.broken = True, True, "upstream_cut"
    whole.unread, whole.client_left = "coded_br", True
    assert whole.describe_end(200) == BodyEnd(
        200, usage=True, complete=True, is_error=True, broken="upstream_cut", unread="coded_br", client_left=True
    )
    meter = streamed.meter = StreamMeter("chat")
    assert streamed.describe_end(200) == StreamEnd(usage=False, terminal=False)
    meter.feed(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n')
    meter.feed(b"data: [DONE]\n\n")
    streamed.said = meter.said
    assert streamed.describe_end(200) == StreamEnd(usage=True, terminal=True)
    meter.failed = meter.overflow = streamed.client_left = True
    streamed.broken, streamed.unread = "drain_limit", "coded_br"
    assert streamed.describe_end(200) == StreamEnd(
        usage=True, terminal=True, failed=True, overflow=True, broken="drain_limit", unread="coded_br", client_left=True
    )


@pytest.mark.parametrize("model", ["gpt-5-mini", "a-model-that-no-book-has"])
@pytest.mark.parametrize("decision", {decision.figures: decision for _, decision in CASES}.values())
def test_without_a_price_everything_but_a_void_is_unpriced(decision: Decision, model: str) -> None:
    settler = Settler(BOOK, markup=Decimal(1), bill_estimates=True, region=None)
    opened = OpenRecord(
        id="019aab00-0000-7000-8000-000000000001",
        user_id="u",
        endpoint="chat",
        model=model,
        started_at=AT,
        text_bytes=40,
    )
    usage = b'{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}'
    exact = settler.settle_exact(opened, Said(usage=usage), AT, drained=decision.evidence == "drained")
    event: UsageEvent
    match decision.figures:
        case "openai":
            event = exact
        case "unfinished":
            event = settler.settle_unfinished(exact, opened, "why")
        case "counted" | "open_record":
            event = settler.settle_estimated(opened, Said(), AT, "why", Tokens(10, 2))
        case "none":
            event = settler.settle_void(opened, AT, "why")
    known = model == "gpt-5-mini" or decision.evidence == "void"
    assert event.evidence == (decision.evidence if known else "unpriced")
    assert (event.cost_nano is None) is not known
