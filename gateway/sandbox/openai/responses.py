"""Responses of the OpenAI stand-in: from the request's fields to a response object and its event stream.

What goes over the wire and when, and what is stored, is decided elsewhere.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.sandbox.openai.answer import Choice, Tool, Wish
from gateway.sandbox.openai.errors import check_types, invalid, missing
from gateway.sandbox.openai.models import Served
from gateway.sandbox.openai.printing import encode_compact, obfuscation
from gateway.sandbox.openai.tokens import Counter
from gateway.sandbox.openai.wire import StreamEvent

_ECHOED: Final[dict[str, Any]] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Fields of the request that the response repeats, and what they are when absent."""
_UNUSED_TOOLS: Final = {
    "image_gen": {
        "input_tokens": 0,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "total_tokens": 0,
    },
    "web_search": {"num_requests": 0},
}
"""`tool_usage` as 268 of 967 recordings have it, the newer ones."""
_TYPES: Final[dict[str, type[Any]]] = {
    "instructions": str,
    "max_output_tokens": int,
    "metadata": dict,
    "reasoning": dict,
    "service_tier": str,
    "stream_options": dict,
    "text": dict,
    "tools": list,
}


_FAILURE: Final = {"code": "server_error", "message": "The server had an error while processing your request."}


class Answered(NamedTuple):
    """One response, answered but not sent."""

    base: dict[str, Any]
    """The response object; its status, output and usage are yet to come."""
    asked_tier: str
    """What the response names until it is finished: 206 of 216 recorded streams begin with `auto`."""
    choice: Choice
    output: list[dict[str, Any]]
    """The finished output items."""

    def at(self, status: str, **fields: Any) -> dict[str, Any]:
        """The response object in this state of its life."""
        return self.base | {"status": status} | fields

    def running(self) -> dict[str, Any]:
        """The response object before its end."""
        return self.at("in_progress", service_tier=self.asked_tier)

    def final(self, usage: Any) -> dict[str, Any]:
        """The response object at its end."""
        if self.choice.finish == "length":
            reason = {"reason": "max_output_tokens"}
            return self.at("incomplete", output=self.output, usage=usage, incomplete_details=reason)
        return self.at("completed", output=self.output, usage=usage, completed_at=self.base["created_at"])

    def failed_response(self, usage: Any) -> dict[str, Any]:
        """The response object after a failure of the model's."""
        return self.at("failed", error=_FAILURE, usage=usage)

    def interrupted_response(self, usage: Any) -> dict[str, Any]:
        """The response object after its stream was broken off: no output, and what was charged until then."""
        return self.at("incomplete", usage=usage)


def input_items(fields: dict[str, Any]) -> list[Any]:
    """The request's input as items. Raises OpenAIError (400)."""
    given = fields.get("input")
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        content = [{"type": "input_text", "text": given}]
        return [{"type": "message", "role": "user", "content": content}]
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise invalid("Invalid type for 'input': expected a string or an array of objects.", "input", "invalid_type")
    return given


def responses_wish(fields: dict[str, Any], earlier: list[Any], counter: Counter, encoding: str) -> Wish:
    """What a request asks for, after the items of the responses before it. Raises OpenAIError (400)."""
    check_types(fields, _TYPES)
    for hosted in ("background", "conversation", "prompt"):
        if fields.get(hosted):
            raise invalid(f"'{hosted}' is not served by the sandbox.", hosted, "unsupported_parameter")
    cap = fields.get("max_output_tokens")
    if cap is not None and cap < 16:
        message = "Invalid 'max_output_tokens': expected an integer of at least 16."
        raise invalid(message, "max_output_tokens", "integer_below_min_value")
    instructions = fields.get("instructions")
    items = [*([{"role": "developer", "content": instructions}] if instructions else []), *earlier]
    items += input_items(fields)
    tools = [*(fields.get("tools") or []), *_find_additional_tools(items)]
    reasoning = fields.get("reasoning") or {}
    check_types(reasoning, {"effort": str})
    return Wish(
        prompt=counter.messages(items, tools, encoding),
        cap=cap,
        effort=reasoning.get("effort"),
        tools=tuple(_tools(tools)),
        tool_choice=fields.get("tool_choice"),
        json_schema=_schema(fields.get("text")),
    )


def _find_additional_tools(items: list[Any]) -> Iterator[Any]:
    """The tools that `additional_tools` items bring, as Codex does (openai-python: `response_input_item.py`)."""
    for position, item in enumerate(items):
        if item.get("type") == "additional_tools":
            if not isinstance(item.get("tools"), list):
                raise missing(f"input[{position}].tools")
            yield from item["tools"]


def _tools(tools: list[Any], namespace: str | None = None) -> Iterator[Tool]:
    """The functions, also those that a namespace holds."""
    for position, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in ("function", "namespace"):
            continue
        if not isinstance(tool.get("name"), str):
            raise missing(f"tools[{position}].name")
        check_types(tool, {"parameters": dict, "tools": list})
        if kind == "function":
            yield Tool(tool["name"], tool.get("parameters") or {}, namespace)
        else:
            yield from _tools(tool.get("tools") or [], tool["name"])


def _schema(text: Any) -> Mapping[str, Any] | None:
    wanted = text.get("format") if isinstance(text, dict) else None
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return None
    check_types(wanted, {"schema": dict})
    return wanted.get("schema") or {}


def build_response(fields: dict[str, Any], served: Served, choice: Choice, number: str, created: int) -> Answered:
    """The response with the ids that come of `number`."""
    asked = fields.get("service_tier") or "auto"
    members: dict[str, Any] = {
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": served.id,
        "moderation": None,
        "output": [],
        "reasoning": {"effort": "medium" if served.reasoning else None, "summary": None}
        | (fields.get("reasoning") or {}),
        "service_tier": served.tier(asked),
        "text": {"format": {"type": "text"}, "verbosity": "medium"} | (fields.get("text") or {}),
        "tool_usage": _UNUSED_TOOLS,
        "usage": None,
    }
    members |= {name: usual if fields.get(name) is None else fields[name] for name, usual in _ECHOED.items()}
    if not fields.get("stream"):
        members["billing"] = {"payer": "developer"}  # in whole answers only (recordings of 2025 and 2026)
    metadata = members.pop("metadata")
    # The order of 191 recordings: these four, the others by name, so that the tools stand between tier and usage.
    first = {"id": f"resp_{number}", "object": "response", "created_at": created, "status": "in_progress"}
    base = first | dict(sorted(members.items())) | {"metadata": metadata}
    return Answered(base, asked, choice, _output(choice, number, sealed=_wants_sealed(fields)))


def _wants_sealed(fields: dict[str, Any]) -> bool:
    """Whether the request asks for its reasoning in an encrypted form."""
    included = fields.get("include")
    return isinstance(included, list) and "reasoning.encrypted_content" in included


def _output(choice: Choice, number: str, *, sealed: bool) -> list[dict[str, Any]]:
    """The finished items: id, type and status first, then the members by name."""
    output: list[dict[str, Any]] = []
    if choice.reasoning:
        encrypted = {"encrypted_content": b64encode(number.encode()).decode()} if sealed else {}
        output.append({"id": f"rs_{number}", "type": "reasoning", **encrypted, "summary": []})
    status = "incomplete" if choice.finish == "length" else "completed"
    if choice.tool is not None:
        call = {"id": f"fc_{number}", "type": "function_call", "status": status, "arguments": choice.text}
        call |= {"call_id": f"call_{number}", "name": choice.tool}
        output.append(call | ({} if choice.namespace is None else {"namespace": choice.namespace}))
    elif choice.pieces:
        message = {"id": f"msg_{number}", "type": "message", "status": status}
        output.append(message | {"content": [_text_part(choice.text)], "role": "assistant"})
    return output


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def response_events(
    done: Answered, final: dict[str, Any], *, padded: bool, keepalives: int = 0
) -> Iterator[StreamEvent]:
    """The whole sequence of events, numbered from 0; the last carries `final`, the response with its usage.

    As many `keepalive` events come while the model seems to think."""
    for number, (kind, fields, tokens) in enumerate(_events(done, final, padded, keepalives)):
        yield StreamEvent(sse(kind, number, fields), tokens)


def _events(
    done: Answered, final: dict[str, Any], padded: bool, keepalives: int
) -> Iterator[tuple[str, dict[str, Any], int]]:
    yield "response.created", {"response": done.running()}, 0
    yield "response.in_progress", {"response": done.running()}, 0
    for _ in range(keepalives):
        yield "keepalive", {}, 0
    choice = done.choice

    def delta(piece: str) -> dict[str, Any]:
        return {"delta": piece} | ({"obfuscation": obfuscation(piece)} if padded else {})

    before = choice.tokens - len(choice.pieces)
    for index, item in enumerate(done.output):
        where = {"output_index": index}
        if item["type"] == "reasoning":
            yield "response.output_item.added", where | {"item": item}, 0
            yield "response.output_item.done", where | {"item": item}, choice.reasoning
            continue
        at = where | {"item_id": item["id"]}
        if item["type"] == "function_call":
            opened = item | {"arguments": "", "status": "in_progress"}
            yield "response.output_item.added", where | {"item": opened}, before
            for count, piece in enumerate(choice.pieces, 1):
                yield "response.function_call_arguments.delta", at | delta(piece), before + count
            yield "response.function_call_arguments.done", at | {"arguments": choice.text}, choice.tokens
        else:
            at |= {"content_index": 0}
            yield (
                "response.output_item.added",
                where | {"item": item | {"content": [], "status": "in_progress"}},
                before,
            )
            yield "response.content_part.added", at | {"part": _text_part("")}, before
            for count, piece in enumerate(choice.pieces, 1):
                yield "response.output_text.delta", at | {"logprobs": []} | delta(piece), before + count
            yield "response.output_text.done", at | {"text": choice.text, "logprobs": []}, choice.tokens
            yield "response.content_part.done", at | {"part": _text_part(choice.text)}, choice.tokens
        yield "response.output_item.done", where | {"item": item}, choice.tokens
    yield f"response.{final['status']}", {"response": final}, choice.tokens


def broken_event(done: Answered, kind: str, number: int, usage: Any) -> bytes:
    """The event that ends a stream which went wrong: `fail` with a response, or a bare `error`."""
    if kind == "fail":
        return sse("response.failed", number, {"response": done.failed_response(usage)})
    return sse("error", number, _FAILURE | {"param": None})


def sse(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    """One event on the wire; its members by name, after the type (recordings of 2026)."""
    data = encode_compact({"type": kind} | dict(sorted((fields | {"sequence_number": number}).items())))
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
