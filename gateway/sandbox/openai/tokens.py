"""Counts what the OpenAI stand-in charges: the prompt's tokens, and which of them its prompt cache knew.

Real tokens (tiktoken); the overheads are those that OpenAI's cookbook names.
"""

import json
from collections import OrderedDict
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol

CACHE_FROM: Final = 1024
"""Shortest prompt that is cached, tokens; beyond it the cache works in blocks."""
CACHE_BLOCK: Final = 128
_COUNTS_MAX: Final = 4096
_PREFIXES_MAX: Final = 200_000
_TEXT_KEYS: Final = ("text", "refusal", "arguments", "input", "output", "content", "summary")


class Coder(Protocol):
    """What the stand-in needs of a tokenizer."""

    def count(self, text: str, encoding: str) -> int: ...

    def pieces(self, text: str, encoding: str) -> list[str]: ...


class Prompt(NamedTuple):
    """What a request gives the model to read."""

    text: str
    tokens: int
    last_user: str
    """The last message of a user, which decides the answer."""
    answers_tool: bool
    """Whether the last message is the result of a tool call."""


class Read(NamedTuple):
    """How the prompt cache saw a prompt, tokens; both are parts of the prompt."""

    cached: int
    written: int


class Counter:
    """Counts with a memory for texts that come again."""

    def __init__(self, coder: Coder) -> None:
        self._coder: Final = coder
        self._counts: Final[OrderedDict[tuple[str, str], int]] = OrderedDict()

    def count(self, text: str, encoding: str) -> int:
        """Tokens of `text`."""
        if len(text) > 4000:
            return self._coder.count(text, encoding)
        key = (encoding, text)
        known = self._counts.get(key)
        if known is None:
            known = self._counts[key] = self._coder.count(text, encoding)
            if len(self._counts) > _COUNTS_MAX:
                self._counts.popitem(last=False)
        return known

    def pieces(self, text: str, encoding: str) -> list[str]:
        """`text` token by token."""
        return self._coder.pieces(text, encoding)

    def messages(self, messages: list[Any], tools: list[Any], encoding: str) -> Prompt:
        """A prompt of chat messages or Responses items: 3 tokens each, one more for a name, 3 for the reply."""
        texts: list[str] = []
        tokens = 3
        last_user = ""
        answers_tool = False
        for message in messages:
            fields = message if isinstance(message, dict) else {"role": "user", "content": str(message)}
            role = str(fields.get("role") or fields.get("type") or "user")
            text = _text(fields)
            tokens += 3 + self.count(role, encoding) + self.count(text, encoding)
            if name := fields.get("name"):
                tokens += 1 + self.count(str(name), encoding)
            texts.append(f"{role}\n{text}\n")
            last_user = text if role == "user" else last_user
            answers_tool = role in ("tool", "function", "function_call_output")
        if tools:
            described = json.dumps(tools, sort_keys=True, separators=(",", ":"))
            tokens += self.count(described, encoding)
            texts.insert(0, described)
        return Prompt("".join(texts), tokens, last_user, answers_tool)


class PromptCache:
    """Prefixes of prompts that were seen before; never forgets by age, only when it is full."""

    def __init__(self, counter: Counter) -> None:
        self._counter: Final = counter
        self._prefixes: Final[set[bytes]] = set()

    def read(self, model: str, prompt: Prompt, encoding: str) -> Read:
        """What of the prompt was known, and what is remembered from now on. At least one token is never cached."""
        if prompt.tokens < CACHE_FROM:
            return Read(0, 0)
        pieces = self._counter.pieces(prompt.text, encoding)
        last = (min(len(pieces), prompt.tokens) - 1) // CACHE_BLOCK * CACHE_BLOCK
        digest = sha256(model.encode())
        cached = 0
        if len(self._prefixes) > _PREFIXES_MAX:
            self._prefixes.clear()
        for end in range(CACHE_BLOCK, last + 1, CACHE_BLOCK):
            digest.update("".join(pieces[end - CACHE_BLOCK : end]).encode("utf-8", "surrogatepass"))
            if end >= CACHE_FROM:
                prefix = digest.digest()
                cached = end if prefix in self._prefixes else cached
                self._prefixes.add(prefix)
        return Read(cached, max(last, 0) - cached if last >= CACHE_FROM else 0)


def _text(node: Any) -> str:
    """All text below a message, tool calls included; pictures and files are not counted."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return "\n".join(filter(None, map(_text, node)))
    if not isinstance(node, dict):
        return ""
    found = [_text(node[key]) for key in _TEXT_KEYS if key in node]
    for call in node.get("tool_calls") or ():
        function = call.get("function", {}) if isinstance(call, dict) else {}
        found.append(f"{function.get('name', '')}({function.get('arguments', '')})")
    return "\n".join(filter(None, found))
