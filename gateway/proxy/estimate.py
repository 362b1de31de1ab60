"""Counts a call's tokens where OpenAI never said them: tiktoken over text in memory, in a thread, bounded.

The text is counted and forgotten; it is never stored or logged. Must not fail: what cannot be counted goes by its
bytes.
"""

import asyncio
from typing import Final

import structlog

from gateway.openai.prompt_text import prompt_text
from gateway.openai.tokenizer import Tokenizer
from gateway.usage.event import OpenRecord
from gateway.usage.settle import BYTES_PER_TOKEN, MEDIA_TOKENS, Settler, Tokens
from pricing.readers.answer_text import answer_text
from pricing.stream import StreamMeter

COUNT_S: Final = 10.0
"""Seconds that a count may take; a call that was cut must not wait for its SETTLE for much longer."""
_log: Final = structlog.get_logger("gateway.proxy")


class Estimator:
    """Best estimates of one process."""

    def __init__(self, tokenizer: Tokenizer, settler: Settler) -> None:
        self._tokenizer: Final = tokenizer
        self._settler: Final = settler

    async def tokens(self, opened: OpenRecord, body: bytes, meter: StreamMeter | None, answer: bytes) -> Tokens:
        """Input counted from the request, output from what the stream showed, or from the whole `answer`.

        Never raises.
        """
        deltas = 0 if meter is None else meter.deltas
        try:
            async with asyncio.timeout(COUNT_S):
                return await asyncio.to_thread(self._count, opened, body, meter, answer)
        except Exception as error:  # noqa: BLE001  # whatever it is, the call must be settled
            _log.warning("estimated by bytes", id=opened.id, error=type(error).__name__)
            return self._settler.by_bytes(opened, max(deltas, _by_bytes(answer)))

    def _count(self, opened: OpenRecord, body: bytes, meter: StreamMeter | None, answer: bytes) -> Tokens:
        text, overhead = prompt_text(body, opened.endpoint)
        spent = self._count_text(opened, text) + overhead + opened.media_parts * MEDIA_TOKENS
        shown = answer_text(answer) if meter is None else meter.visible_text()
        # No event has less than a token: a floor for what is not text, such as audio.
        return Tokens(spent, max(self._count_text(opened, shown), 0 if meter is None else meter.deltas))

    def _count_text(self, opened: OpenRecord, text: str) -> int:
        if not text:
            return 0
        try:
            return self._tokenizer.count(text, self._settler.encoding(opened.model))
        except BaseException as error:  # noqa: BLE001  # a panic of tiktoken's Rust code is not an Exception; this is a thread
            _log.warning("counted by bytes", id=opened.id, error=type(error).__name__)
            return _by_bytes(text.encode("utf-8", "replace"))


def _by_bytes(text: bytes) -> int:
    return -(-len(text) // BYTES_PER_TOKEN)
