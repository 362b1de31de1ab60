"""The usage blocks of the OpenAI stand-in, every sub-field present, and the untruths it can be told to say. Pure."""

from typing import Any, Final, NamedTuple

import msgspec

from gateway.sandbox.openai_tokens import Read

OMIT: Final = "omit"


class Input(NamedTuple):
    """The input side of a bill, tokens."""

    tokens: int
    read: Read
    ttl_12h: bool = False
    """Whether what was written to the cache is kept for twelve hours instead of thirty minutes."""


def chat_usage(spent: Input, output: int, reasoning: int) -> dict[str, Any]:
    """facts/openai-metering.md M1: nested counts are parts of the count above them."""
    return {
        "prompt_tokens": spent.tokens,
        "completion_tokens": output,
        "total_tokens": spent.tokens + output,
        "prompt_tokens_details": {
            "cached_tokens": spent.read.cached,
            "cache_write_tokens": spent.read.written,
            "audio_tokens": 0,
            "image_tokens": 0,
            "text_tokens": spent.tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "text_tokens": output,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def responses_usage(spent: Input, output: int, reasoning: int) -> dict[str, Any]:
    """facts/openai-metering.md M2."""
    written = spent.read.written
    return {
        "input_tokens": spent.tokens,
        "input_tokens_details": {
            "cached_tokens": spent.read.cached,
            "cache_write_tokens": written,
            "cache_write_tokens_details": {
                "ttl_30m_tokens": 0 if spent.ttl_12h else written,
                "ttl_12h_tokens": written if spent.ttl_12h else 0,
            },
        },
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


def encoded(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)
