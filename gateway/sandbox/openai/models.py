"""Which models the OpenAI stand-in has, and what each does: names, snapshots, tiers, caching. Pure.

Read from the price book, so that the sandbox serves what the gateway can price. A real OpenAI may have more.
"""

import re
from typing import Any, Final

import msgspec

from pricing.book import Book

_DATED: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_SNAPSHOTS: Final = {
    "babbage-002": "babbage:2023-07-21-v2",
    "davinci-002": "davinci:2023-07-21-v2",
    "gpt-3.5-turbo-instruct": "gpt-3.5-turbo-instruct:20230824-v2",
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
    "gpt-4": "gpt-4-0613",
    "gpt-4-turbo": "gpt-4-turbo-2024-04-09",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "o1": "o1-2024-12-17",
    "o3": "o3-2025-04-16",
    "o3-mini": "o3-mini-2025-01-31",
    "o4-mini": "o4-mini-2025-04-16",
}
"""Aliases whose snapshot does not carry the day of their release in the book."""
_UNDATED_FROM: Final = (5, 6)
"""From GPT-5.6 on a model has no dated snapshots (OpenAI's docs)."""
_VERSION: Final = re.compile(r"gpt-(\d+)(?:\.(\d+))?-?")
_SAME_TIER: Final = {"flex": "flex", "priority": "priority", "fast": "priority", "ultrafast": "ultrafast"}


class Served(msgspec.Struct, frozen=True):
    """One model as the stand-in serves it."""

    id: str
    """The name that the answer carries."""
    kind: str
    """`text`, `embedding`, `moderation` or `image`."""
    reasoning: bool
    writes_cache: bool
    """Whether writes to the prompt cache are counted (and billed)."""
    tiers: frozenset[str]
    """Service tiers besides `default`."""
    encoding: str
    dimensions: int
    """Length of an embedding; 0 for other models."""

    def tier(self, asked: str | None) -> str:
        """The tier that the answer names: `auto` and what the model does not have come back as `default`."""
        tier = _SAME_TIER.get(asked or "auto", "default")
        return tier if tier in self.tiers else "default"


class Models:
    """The models of one price book, by every name a client may use."""

    def __init__(self, book: Book) -> None:
        self._book: Final = book
        self._known: Final[dict[str, Served | None]] = {}

    def find(self, name: str) -> Served | None:
        """The model that answers to `name`, or None: OpenAI would say 404."""
        if name not in self._known:
            served = self._serve(name)
            if len(self._known) > 1000:
                self._known.clear()
            self._known[name] = served
        return self._known[name]

    def listed(self) -> list[dict[str, Any]]:
        """`GET /models`: every model and every snapshot."""
        names: dict[str, None] = {}
        for model in self._book.models():
            if not model.id.startswith("ft:"):
                names |= dict.fromkeys((model.id, *model.aliases, _snapshot(model.id, model.released)))
        # What only answers carry, such as `davinci:2023-07-21-v2`, is not listed.
        return [model_object(name) for name in names if ":" not in name]

    def _serve(self, name: str) -> Served | None:
        model = self._book.resolve(name)
        if model is None:
            return None
        tables = [table for price in model.price for table in price.tables().items()]
        dated = name.startswith("ft:") or _DATED.search(name) or name in _SNAPSHOTS.values()
        return Served(
            id=name if dated else _snapshot(model.id, model.released),
            kind=model.kind,
            reasoning=model.reasoning,
            writes_cache=any(rates.write_30m is not None for _, rates in tables),
            tiers=frozenset(tier for tier, _ in tables),
            encoding=self._book.encoding(model.id),
            dimensions=0 if model.kind != "embedding" else 3072 if model.id.endswith("-large") else 1536,
        )


def _snapshot(model_id: str, released: Any) -> str:
    """The name under which an alias answers."""
    if model_id in _SNAPSHOTS:
        return _SNAPSHOTS[model_id]
    version = _VERSION.match(model_id)
    undated = version is not None and (int(version[1]), int(version[2] or 0)) >= _UNDATED_FROM
    return model_id if released is None or undated else f"{model_id}-{released.isoformat()}"


def model_object(name: str) -> dict[str, Any]:
    """One entry of `GET /models`; the recordings have these members and no others."""
    owner = "system" if not name.startswith("ft:") else "organization-owner"
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": owner}
