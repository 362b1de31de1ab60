"""What the OpenAI stand-in's model says: always the same for the same request, in real tokens. Pure.

Knows nothing of a wire format: chat and Responses put these pieces into their own shapes.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple

import msgspec

from gateway.sandbox.openai.models import Served
from gateway.sandbox.openai.schema import fake
from gateway.sandbox.openai.tokens import Counter, Prompt

# fmt: off
_WORDS: Final = (  # a prime number of them, so that every stride reaches all
    "the", "a", "gateway", "counts", "every", "call", "once", "and", "keeps", "its", "price", "exact", "while",
    "answers", "pass", "through", "without", "change", "so", "that", "people", "can", "read", "what", "they",
    "used", "and", "trust", "the", "figure", "at", "the", "end", "of", "each", "month", "here",
)
# fmt: on
_REASONING: Final = {"none": 0, "minimal": 0, "low": 64, "medium": 128, "high": 256, "xhigh": 384, "max": 512}
"""Reasoning tokens by effort."""
Finish = Literal["stop", "length", "tool_calls"]


class Tool(NamedTuple):
    """A function that the client offers."""

    name: str
    schema: Mapping[str, Any]
    namespace: str | None = None
    """The namespace that holds it, in Responses."""


class Wish(msgspec.Struct, frozen=True):
    """What a request asks of the answer, whichever endpoint it came to."""

    prompt: Prompt
    choices: int = 1
    cap: int | None = None
    """Most output tokens of one choice, reasoning included."""
    effort: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Any = None
    json_schema: Mapping[str, Any] | None = None
    """The shape of a structured answer; empty for any object."""
    tokens: int | None = None
    """The exact length of the answer, tokens."""


class Choice(NamedTuple):
    """One answer. `pieces` are tokens, of the text or of the tool call's arguments."""

    pieces: list[str]
    finish: Finish
    tool: str | None
    reasoning: int
    tokens: int
    """Everything that is charged as output: reasoning, text, and the tool's name and arguments."""
    namespace: str | None = None
    """Of the tool."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def with_huge_piece(self, size: int) -> "Choice":
        """The same with one token more in its middle, of so many bytes."""
        middle = len(self.pieces) // 2
        pieces = [*self.pieces[:middle], "x" * size, *self.pieces[middle:]]
        return self._replace(pieces=pieces, tokens=self.tokens + 1)


def answer(counter: Counter, model: Served, wish: Wish) -> list[Choice]:
    """The answers to one request."""
    return [_choice(counter, model, wish, index) for index in range(wish.choices)]


def _choice(counter: Counter, model: Served, wish: Wish, index: int) -> Choice:
    seed = sha256(f"{model.id}\n{index}\n{wish.prompt.text}".encode("utf-8", "surrogatepass")).digest()
    reasoning = _REASONING.get(wish.effort or "medium", 128) if model.reasoning else 0
    tool = _choose_tool(wish) if wish.tokens is None else None
    if tool is not None:
        text = json.dumps(fake(tool.schema, seed), separators=(",", ":"))
    elif wish.json_schema is not None and wish.tokens is None:
        text = json.dumps(fake(wish.json_schema, seed) or {"answer": _prose(seed, 8)}, separators=(",", ":"))
    else:
        text = _prose(seed, wish.tokens or 16 + seed[0] % 32)
    pieces = counter.pieces(text, model.encoding)
    if wish.tokens is not None:
        pieces = pieces[: wish.tokens]
    named = 0 if tool is None else counter.count(tool.name, model.encoding)
    finish: Finish = "stop" if tool is None else "tool_calls"
    if wish.cap is not None and reasoning + named + len(pieces) > wish.cap:
        finish = "length"
        reasoning = min(reasoning, wish.cap)
        room = wish.cap - reasoning - named
        pieces = pieces[: max(0, room)]
        if room < 0:
            tool, named = None, 0
    name, namespace = (None, None) if tool is None else (tool.name, tool.namespace)
    return Choice(pieces, finish, name, reasoning, reasoning + named + len(pieces), namespace)


def _prose(seed: bytes, words: int) -> str:
    """So many words, each of them one token."""
    start = seed[1]
    chosen = [_WORDS[(start + position * (1 + seed[2] % 7)) % len(_WORDS)] for position in range(words)]
    return " ".join(chosen)


def _choose_tool(wish: Wish) -> Tool | None:
    """The tool that the model calls: the one it must, or one that the user seems to ask for."""
    if not wish.tools or wish.tool_choice == "none":
        return None
    if isinstance(wish.tool_choice, Mapping):
        function = wish.tool_choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else wish.tool_choice.get("name")
        named = [tool for tool in wish.tools if tool.name == name]
        return named[0] if named else None
    if wish.tool_choice == "required":
        return wish.tools[0]
    asked = wish.prompt.last_user.lower()
    if wish.prompt.answers_tool:
        return None
    for tool in wish.tools:
        if tool.name.lower() in asked:
            return tool
    for tool in wish.tools:
        words = [word for word in tool.name.lower().replace("-", "_").split("_") if len(word) > 2]
        if any(word in asked for word in words if word not in ("get", "set")):
            return tool
    return wish.tools[0] if "tool" in asked or "function" in asked else None
