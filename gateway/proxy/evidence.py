"""Which end of a call is which evidence (docs/schema.md, `openai_usage`). Pure: values in, a decision out.

Whoever sees a call end describes the end in one of four shapes; `decide_evidence` says what its row may claim. What
must not happen: a call that may have run as `void`, and figures that OpenAI may not have finished as `reported`.

`unpriced` is not decided by this table: it is what every decision but `void` becomes in gateway/usage/settle.py where
the price book does not know the model or the tier.
"""

from typing import Final, Literal

import msgspec

INTERRUPTED: Final = "gateway_interrupted"
"""Reason of an estimate: a shutdown, or a bug of ours. The call may have run."""
NOT_SENT: Final = "not_sent"
"""Reason of a void: no byte of the request was written."""


class NoAnswer(msgspec.Struct, frozen=True):
    """The head of an answer never came."""

    code: str | None
    """The gateway's error code for it: `upstream_timeout`, `upstream_cut`. None: no request byte was written."""


class StreamEnd(msgspec.Struct, frozen=True):
    """An event stream of status 200 has ended."""

    usage: bool
    """Whether OpenAI said what was used."""
    terminal: bool
    """Whether the terminal event came."""
    failed: bool = False
    """Whether an error event came."""
    overflow: bool = False
    """Whether an event was too large to be read, so that what came after it is unknown."""
    broken: str | None = None
    """Why the reading ended before the terminal event: `upstream_cut`, `upstream_timeout`, `drain_limit`."""
    unread: str | None = None
    """Why what came could not be read: `coded_br`, `coded_damaged`, …"""
    client_left: bool = False


class BodyEnd(msgspec.Struct, frozen=True):
    """Any other answer has ended."""

    status: int
    """OpenAI's."""
    usage: bool = False
    """Whether OpenAI said what was used."""
    complete: bool = False
    """Whether the body was read to its end."""
    is_error: bool = False
    """Whether the body is OpenAI's own error object."""
    broken: str | None = None
    """Why the reading ended early: `upstream_cut`, `upstream_timeout`, `drain_limit`."""
    unread: str | None = None
    """Why what came could not be read: `coded_br`, `coded_damaged`, …"""
    client_left: bool = False


class Interrupted(msgspec.Struct, frozen=True):
    """The gateway itself ended the call, after the request may have been sent and before any other end was settled."""

    usage: bool
    """Whether OpenAI said what was used."""
    estimate_failed: bool = False
    """Whether an estimate from what is known of the call has failed too."""


End = NoAnswer | StreamEnd | BodyEnd | Interrupted

Figures = Literal["openai", "unfinished", "counted", "open_record", "none"]
"""Where a row's tokens come from.

`openai`: OpenAI's usage block. `unfinished`: the same, of an answer that did not end as it must. `counted`: the
gateway's own count over the request and what the answer showed. `open_record`: the sizes in the OPEN alone.
"""


class Decision(msgspec.Struct, frozen=True):
    """What the row of a call says of how sure it is."""

    evidence: Literal["reported", "drained", "estimated", "void"]
    figures: Figures
    reason: str | None = None
    """Why an estimate is no more than that, or why the call is known not to have run."""
    marks: tuple[str, ...] = ()
    """Flags of the row's metadata: `failed` (an error event came), `unterminated` (no terminal event came)."""
    shows_status: bool = False
    """Whether the metadata names the status."""


def hides_output(decision: Decision) -> bool:
    """Whether the answer may have continued unseen: not where OpenAI ended it or refused the call."""
    reason = decision.reason or ""
    is_guess = decision.figures in ("counted", "open_record")
    return is_guess and reason not in ("usage_missing", "stream_failed") and not reason.startswith("http_")


_REPORTED: Final = Decision("reported", "openai")
_DRAINED: Final = Decision("drained", "openai")
_NEVER_SENT: Final = Decision("void", "none", NOT_SENT)
_FROM_OPEN: Final = Decision("estimated", "open_record", INTERRUPTED)


def decide_evidence(end: End) -> Decision:
    """The evidence that this end of a call is."""
    if isinstance(end, StreamEnd):
        return _decide_stream(end)
    if isinstance(end, BodyEnd):
        return _decide_body(end)
    if isinstance(end, NoAnswer):
        return _NEVER_SENT if end.code is None else _estimated(end.code, usage=False)
    return _FROM_OPEN if end.estimate_failed else _estimated(INTERRUPTED, usage=end.usage)


def _decide_stream(end: StreamEnd) -> Decision:
    if end.usage and end.broken is None and not end.overflow:
        # Usage comes last: a chat stream that ended as it should in all but its `[DONE]` has said everything.
        if end.terminal and not end.failed:
            return _exact(end)
        marks = (("failed",) if end.failed else ()) + (() if end.terminal else ("unterminated",))
        return msgspec.structs.replace(_exact(end), marks=marks)
    if end.terminal and not end.failed:
        return _estimated("usage_missing", usage=end.usage)
    unsaid = "stream_failed" if end.failed else "no_terminal_event"
    return _estimated(end.broken or end.unread or unsaid, usage=end.usage)


def _decide_body(end: BodyEnd) -> Decision:
    status = end.status
    if status == 200 and end.complete and end.usage:
        return _exact(end)
    if 400 <= status < 500 or (status in (500, 503) and end.is_error):
        return Decision("void", "none", f"http_{status}", shows_status=True)
    unsaid = "usage_missing" if status == 200 else f"http_{status}"
    return _estimated(end.broken or end.unread or unsaid, usage=end.usage)


def _exact(end: StreamEnd | BodyEnd) -> Decision:
    return _DRAINED if end.client_left else _REPORTED


def _estimated(reason: str, *, usage: bool) -> Decision:
    return Decision("estimated", "unfinished" if usage else "counted", reason, shows_status=True)
