"""Counts a call's tokens where OpenAI never said them: tiktoken over text in memory, in a thread, bounded.

The text is counted and forgotten; it is never stored or logged.
"""

import asyncio
from typing import Final

from gateway.core.event import OpenRecord
from gateway.core.prompt_text import prompt_text
from gateway.core.settle import MEDIA_TOKENS, Settler, Tokens
from gateway.edges.tokenizer import Tokenizer
from pricing.stream import StreamMeter


class Estimator:
    """Best estimates of one process."""

    def __init__(self, tokenizer: Tokenizer, settler: Settler) -> None:
        self._tokenizer: Final = tokenizer
        self._settler: Final = settler

    async def tokens(self, opened: OpenRecord, body: bytes, meter: StreamMeter | None) -> Tokens:
        """Input counted from the request, output from what the stream showed before it ended."""
        return await asyncio.to_thread(self._count, opened, body, meter)

    def _count(self, opened: OpenRecord, body: bytes, meter: StreamMeter | None) -> Tokens:
        encoding = self._settler.encoding(opened.model)
        text, overhead = prompt_text(body)
        spent = self._tokenizer.count(text, encoding) + overhead + opened.media_parts * MEDIA_TOKENS
        shown = "" if meter is None else meter.visible_text()
        return Tokens(spent, self._tokenizer.count(shown, encoding) if shown else 0)
