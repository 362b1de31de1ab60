"""Helpers to state expected money as arithmetic. Exact; shares nothing with pricing/ but its request type."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pricing import Book, Priced, PriceRequest, price

GOLDEN = Path(__file__).parents[1] / "golden"
BEFORE_PROMO_END = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def mtok(usd: str, tokens: int) -> Decimal:
    """USD of `tokens` at `usd` per million."""
    return Decimal(usd) * tokens / 1_000_000


def usd(priced: Priced) -> Decimal:
    """The cost of a row that must be priced."""
    assert priced.evidence == "reported", priced.problems
    assert priced.cost_nano is not None
    return Decimal(priced.cost_nano).scaleb(-9)


def golden(name: str, folder: str = "usage") -> dict[str, Any]:
    """A golden body."""
    body: dict[str, Any] = json.loads((GOLDEN / folder / f"{name}.json").read_text("utf-8"))
    return body


def ask(book: Book, model: str, usage: object, *, endpoint: str = "chat", at: datetime = NOW, **more: Any) -> Priced:
    """Price a usage block given as a Python value."""
    return price(book, PriceRequest(endpoint, model, at, json.dumps(usage).encode(), **more))


def chat(prompt: int, completion: int, **details: int) -> dict[str, Any]:
    """A chat usage block; details go to the prompt."""
    block = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**block, "prompt_tokens_details": details} if details else block


def responses(input_: int, output: int, **details: Any) -> dict[str, Any]:
    """A responses usage block; details go to the input."""
    block = {"input_tokens": input_, "output_tokens": output, "total_tokens": input_ + output}
    return {**block, "input_tokens_details": details} if details else block
