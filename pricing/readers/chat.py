"""What chat (and legacy completion) stream chunks say: id, model, tier, usage, visible text. Pure.

Usage comes in one extra chunk before `[DONE]`, with `choices: []`; every other chunk then has `usage: null`
(OpenAI's docs). `obfuscation` padding is not output and is never counted.
"""

import re
from typing import Any, Final

import msgspec

from pricing.readers.body import UNREADABLE, Said, object_of, read_fields

DONE: Final = b"[DONE]"
_DELTA: Final = b'"delta":{"'
_EMPTY: Final = b'"content":""'
"""In the first chunk of a choice, beside its role."""
_OTHER_DELTA: Final = re.compile(
    rb'"delta"\s*:\s*\{\s*"(?!role"\s*:\s*"\w*"\s*,\s*"content"\s*:\s*"")|"text"\s*:\s*"(?!")'
)
"""Spelled in another way than OpenAI's, or of legacy completions."""


class Chunk(msgspec.Struct):
    """One chunk, as far as it matters here."""

    usage: bytes | None
    """The usage block as sent."""
    empty: bool
    """Whether it carries no choice, so that withholding it hides nothing."""
    failed: bool


def read_chunk(data: bytes, said: Said) -> Chunk | None:
    """Notes what the chunk says in `said`; None when it is not a JSON object."""
    fields = read_fields(data)
    if fields is None:
        return None
    said.note(fields)
    choices = fields.get("choices", b"[]")
    empty = choices == b"null" or choices[1:-1].strip() == b""
    return Chunk(object_of(fields.get("usage")), empty, fields.get("error", b"null") != b"null")


def count_deltas(region: bytes) -> int:
    """How many deltas these events carry: about one output token each. Inside a JSON string no such key can stand."""
    deltas = region.count(_DELTA)
    if deltas:
        return max(0, deltas - region.count(_EMPTY))
    return len(_OTHER_DELTA.findall(region))


def visible_text(data: bytes) -> str:
    """The text a user of the API sees in one chunk: content, refusals, tool arguments; "" when there is none."""
    try:
        chunk = msgspec.json.decode(data)
    except UNREADABLE:
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
        audio = delta.get("audio")
        if isinstance(audio, dict):
            parts.append(audio.get("transcript"))
        calls = delta.get("tool_calls")
        for call in [*(calls if isinstance(calls, list) else []), {"function": delta.get("function_call")}]:
            function = call.get("function") or call.get("custom") if isinstance(call, dict) else None
            if isinstance(function, dict):
                parts += [function.get("name"), function.get("arguments"), function.get("input")]
    return "".join(part for part in parts if isinstance(part, str))
