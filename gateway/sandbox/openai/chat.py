"""Chat completions of the OpenAI stand-in: from the request's fields to a body or a stream of chunks.

What goes over the wire and when is decided elsewhere.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.sandbox.openai.answer import Choice, Tool, Wish
from gateway.sandbox.openai.errors import check_types, invalid, missing
from gateway.sandbox.openai.printing import LF, data_event, encode_indented, obfuscation
from gateway.sandbox.openai.tokens import Counter
from gateway.sandbox.openai.usage import OMIT
from gateway.sandbox.openai.wire import StreamEvent

CHOICES_MAX: Final = 128
_TYPES: Final[dict[str, type[Any]]] = {
    "messages": list,
    "n": int,
    "max_completion_tokens": int,
    "max_tokens": int,
    "metadata": dict,
    "reasoning_effort": str,
    "response_format": dict,
    "service_tier": str,
    "stream_options": dict,
    "tools": list,
}


class Chat(NamedTuple):
    """One completion, answered but not sent."""

    id: str
    created: int
    model: str
    tier: str
    choices: list[Choice]
    reasoning: bool
    """Whether it is a reasoning model: those say no log probabilities and have no fingerprint (recordings of 2026)."""

    def head(self, kind: str) -> dict[str, Any]:
        """What every body and chunk begins with."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def service_fields(self) -> dict[str, Any]:
        """How it was served: at the end of a body, before the choices of a chunk."""
        return {"service_tier": self.tier, "system_fingerprint": None if self.reasoning else "fp_sandbox"}

    def logprobs(self) -> dict[str, Any]:
        return {} if self.reasoning else {"logprobs": None}


def chat_wish(fields: dict[str, Any], counter: Counter, encoding: str) -> Wish:
    """What a chat request asks for. Raises OpenAIError (400)."""
    check_types(fields, _TYPES)
    messages = fields.get("messages")
    if messages is None:
        raise missing("messages")
    if not messages:
        raise invalid("Invalid 'messages': expected an array with minimum length 1.", "messages", "empty_array")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise missing(f"messages[{position}].role")
    choices = fields.get("n") or 1
    if not 1 <= choices <= CHOICES_MAX:
        raise invalid(f"Invalid 'n': expected an integer from 1 to {CHOICES_MAX}.", "n", "invalid_value")
    if fields.get("stream_options") is not None and not fields.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise invalid(message, "stream_options", "invalid_value")
    tools = tuple(_tools(fields.get("tools") or []))
    return Wish(
        prompt=counter.messages(messages, fields.get("tools") or [], encoding),
        choices=choices,
        cap=_cap(fields),
        effort=fields.get("reasoning_effort"),
        tools=tools,
        tool_choice=fields.get("tool_choice"),
        json_schema=_schema(fields.get("response_format")),
    )


def _tools(tools: list[Any]) -> Iterator[Tool]:
    for position, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(tool, dict) and tool.get("type") == "custom":
            continue
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise missing(f"tools[{position}].function.name")
        check_types(function, {"parameters": dict})
        yield Tool(function["name"], function.get("parameters") or {})


def _cap(fields: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        cap = fields.get(name)
        if cap is not None:
            if cap < 1:
                raise invalid(f"Invalid '{name}': expected an integer of at least 1.", name, "integer_below_min_value")
            return int(cap)
    return None


def _schema(wanted: Any) -> Mapping[str, Any] | None:
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return None
    check_types(wanted, {"json_schema": dict})
    inner = wanted.get("json_schema") or {}
    check_types(inner, {"schema": dict})
    return inner.get("schema") or {}


def chat_body(chat: Chat, usage: Any) -> bytes:
    """The answer in one piece; 1,403 of 2,013 recordings have this order, usage before tier and fingerprint."""
    choices = [
        {
            "index": index,
            "message": _message(chat.id, index, choice),
            **chat.logprobs(),
            "finish_reason": choice.finish,
        }
        for index, choice in enumerate(chat.choices)
    ]
    charged = {} if usage == OMIT else {"usage": usage}
    return encode_indented(chat.head("chat.completion") | {"choices": choices} | charged | chat.service_fields(), LF)


def _message(chat_id: str, index: int, choice: Choice) -> dict[str, Any]:
    end: dict[str, Any] = {"refusal": None, "annotations": []}
    if choice.tool is None:
        return {"role": "assistant", "content": choice.text, **end}
    function = {"name": choice.tool, "arguments": choice.text}
    call = {"id": _call_id(chat_id, index), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call], **end}


def _call_id(chat_id: str, index: int) -> str:
    return f"call_{chat_id.removeprefix('chatcmpl-')}{index}"


def chat_events(chat: Chat, options: Any, usage: Any) -> Iterator[StreamEvent]:
    """The answer as chunks. `usage`, unless it is `OMIT`, comes last and only when `options` ask for it."""
    asked = isinstance(options, dict) and options.get("include_usage") is True
    padded = not (isinstance(options, dict) and options.get("include_obfuscation") is False)
    head = chat.head("chat.completion.chunk") | chat.service_fields()
    tail: dict[str, Any] = {"usage": None} if asked else {}
    produced = 0

    def pad(text: str) -> dict[str, Any]:
        return {"obfuscation": obfuscation(text)} if padded else {}

    def chunk(index: int, delta: dict[str, Any], text: str, finish: str | None = None) -> StreamEvent:
        choice = {"index": index, "delta": delta, **chat.logprobs(), "finish_reason": finish}
        return StreamEvent(data_event(head | {"choices": [choice]} | tail | pad(text)), produced)

    for index, choice in enumerate(chat.choices):
        produced += choice.tokens - len(choice.pieces)
        yield chunk(index, _opening(chat.id, index, choice), "")
    for position in range(max(len(choice.pieces) for choice in chat.choices)):
        for index, choice in enumerate(chat.choices):
            if position < len(choice.pieces):
                produced += 1
                piece = choice.pieces[position]
                yield chunk(index, _delta(choice, piece), piece)
    for index, choice in enumerate(chat.choices):
        yield chunk(index, {}, choice.finish, choice.finish)
    if asked and usage != OMIT:
        yield StreamEvent(data_event(head | {"choices": [], "usage": usage} | pad(str(usage))), produced)
    yield StreamEvent(b"data: [DONE]\n\n", produced)


def _opening(chat_id: str, index: int, choice: Choice) -> dict[str, Any]:
    """The first delta of a choice."""
    if choice.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}
    function = {"name": choice.tool, "arguments": ""}
    call = {"index": 0, "id": _call_id(chat_id, index), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _delta(choice: Choice, piece: str) -> dict[str, Any]:
    if choice.tool is None:
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def chat_failure() -> bytes:
    """The event that ends a stream which went wrong."""
    error = {"message": "The server had an error while processing your request.", "type": "server_error"}
    return data_event({"error": error | {"param": None, "code": "server_error"}})
