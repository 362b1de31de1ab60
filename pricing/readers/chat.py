"""What chat (and legacy completion) stream chunks say: id, model, tier, usage, visible text. Pure.

Usage comes in one extra chunk before `[DONE]`, with `choices: []`; every other chunk then has `usage: null`
(facts/openai-metering.md M1). `obfuscation` padding is not output and is never counted.
"""

from typing import Any, Final

import msgspec

from pricing.readers.body import Said

DONE: Final = b"[DONE]"


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")
    choices: msgspec.Raw = msgspec.Raw(b"[]")


_decoder: Final = msgspec.json.Decoder(_Chunk)


class Chunk(msgspec.Struct):
    """One chunk, as far as it matters here."""

    usage: bytes | None
    empty: bool
    """Whether it carries no choice, so that withholding it hides nothing."""
    failed: bool


def read_chunk(data: bytes, said: Said) -> Chunk | None:
    """Notes what the chunk says in `said`; None when it is no JSON object."""
    try:
        chunk = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    said.response_id = said.response_id or chunk.id
    said.model = chunk.model or said.model
    said.service_tier = chunk.service_tier or said.service_tier
    usage = bytes(chunk.usage)
    if usage[:1] == b"{":
        said.usage = usage
    found = usage if usage[:1] == b"{" else None
    return Chunk(found, bytes(chunk.choices).strip() in (b"[]", b"null"), bytes(chunk.error) != b"null")


def visible_text(data: bytes) -> str:
    """The text a user of the API sees in one chunk: content, refusals, tool arguments; "" when there is none."""
    try:
        chunk = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return ""
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    return "".join(_choice_text(choice) for choice in choices) if isinstance(choices, list) else ""


def _choice_text(choice: Any) -> str:
    if not isinstance(choice, dict):
        return ""
    parts = [choice.get("text")]
    delta = choice.get("delta")
    if isinstance(delta, dict):
        parts += [delta.get("content"), delta.get("refusal"), delta.get("reasoning_content")]
        calls = delta.get("tool_calls")
        for call in [*(calls if isinstance(calls, list) else []), {"function": delta.get("function_call")}]:
            function = call.get("function") or call.get("custom") if isinstance(call, dict) else None
            if isinstance(function, dict):
                parts += [function.get("name"), function.get("arguments"), function.get("input")]
    return "".join(part for part in parts if isinstance(part, str))
