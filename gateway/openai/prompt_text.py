"""The text a model reads in a request, for an estimate when OpenAI never said what was used. Pure.

Only counted, in memory, then forgotten: a prompt is never stored or logged.
"""

from typing import Any, Final

import msgspec

from gateway.openai.families.catalogue import FAMILY_OF, PROMPT_FIELDS

MESSAGE_TOKENS: Final = 3
"""Overhead of a chat message, and of the reply's priming (OpenAI's docs)."""
_NOT_TEXT: Final = frozenset({
    "type", "role", "id", "call_id", "status", "execution", "url", "image_url", "data", "file_data", "detail", "format",
})  # fmt: skip
"""Members whose text is not read as such; one that is an object (a schema, a custom tool's grammar) is looked into."""


def prompt_text(body: bytes, endpoint: str | None = None) -> tuple[str, int]:
    """(all text of the request joined, tokens of overhead, or the count itself for token arrays). Without a known
    `endpoint`, the text of every field that any family reads.

    Never raises: a body that cannot be read to its depths, although it was forwarded, counts whole.
    """
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace"), 0
    texts: list[str] = []
    tokens = 0
    family = None if endpoint is None else FAMILY_OF.get(endpoint)
    names = PROMPT_FIELDS if family is None else family.prompt_fields
    stack: list[Any] = [document[name] for name in names if name in document]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            texts.append(node)
        elif isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            tokens += MESSAGE_TOKENS if "role" in node else 0
            stack.extend(value for key, value in node.items() if key not in _NOT_TEXT or not isinstance(value, str))
        elif isinstance(node, int) and not isinstance(node, bool) and "messages" not in document:
            tokens += 1  # an embeddings input or a prompt may be an array of token ids
    return "\n".join(texts), tokens + (MESSAGE_TOKENS if "messages" in document else 0)
