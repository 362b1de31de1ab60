"""The usage blocks of the OpenAI stand-in, and the untruths it can be told to say. Pure."""

from typing import Any, Final, NamedTuple

from gateway.sandbox.openai.tokens import Read

OMIT: Final = "omit"


class Input(NamedTuple):
    """The input side of a bill, tokens."""

    tokens: int
    read: Read
    bills_writes: bool
    """Whether what was written to the cache is said (and billed)."""
    ttl_12h: bool
    """Whether what was written to the cache is kept for twelve hours instead of thirty minutes."""


def chat_usage(spent: Input, output: int, reasoning: int) -> dict[str, Any]:
    """Nested counts are parts of the count above them (OpenAI's docs).

    The members are those of most recordings: `image_tokens` and `text_tokens` come with audio models only, and
    writes to the cache where a model bills them.
    """
    written = {"cache_write_tokens": spent.read.written} if spent.bills_writes else {}
    return {
        "prompt_tokens": spent.tokens,
        "completion_tokens": output,
        "total_tokens": spent.tokens + output,
        "prompt_tokens_details": {"cached_tokens": spent.read.cached, **written, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def completions_usage(read: int, output: int) -> dict[str, Any]:
    """Without details, and without `completion_tokens` when there are none (recordings of 2025)."""
    written = {"completion_tokens": output} if output else {}
    return {"prompt_tokens": read, **written, "total_tokens": read + output}


def responses_usage(spent: Input, output: int, reasoning: int) -> dict[str, Any]:
    """260 of 969 recordings of the real API have `cache_write_tokens`, none has its split by lifetime:
    that comes only with a request for the longer one."""
    details: dict[str, Any] = {}
    if spent.bills_writes:
        details["cache_write_tokens"] = spent.read.written
        if spent.ttl_12h:
            details["cache_write_tokens_details"] = {"ttl_30m_tokens": 0, "ttl_12h_tokens": spent.read.written}
    details["cached_tokens"] = spent.read.cached
    return {
        "input_tokens": spent.tokens,
        "input_tokens_details": details,
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": spent.tokens + output,
    }


def shown(usage: dict[str, Any], untruth: Any) -> Any:
    """The usage as the answer says it; `OMIT` when it is to say nothing."""
    if untruth is None:
        return usage
    if untruth == "negative":
        return {name: -value if isinstance(value, int) else value for name, value in usage.items()}
    if untruth == "malformed":
        return {name: "many" if isinstance(value, int) else [value] for name, value in usage.items()}
    return untruth


def wants_12h(fields: dict[str, Any]) -> bool:
    """Whether the request asks for the long-lived cache."""
    options = fields.get("prompt_cache_options")
    return isinstance(options, dict) and options.get("ttl") == "12h"
