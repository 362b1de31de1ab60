"""Stores webhooks that come together in one transaction; each is answered for only when it is committed."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from gateway.stores.webhook_inbox import WebhookEvent


class EventStore(Protocol):
    """Where events are kept."""

    async def store(self, events: Sequence[WebhookEvent]) -> set[str]: ...


class InboxWriter:
    """One per process and source."""

    def __init__(self, store: EventStore) -> None:
        self._store: Final = store
        self._waiting: list[tuple[WebhookEvent, asyncio.Future[bool]]] = []
        self._storing: asyncio.Task[None] | None = None

    async def keep(self, event: WebhookEvent) -> bool:
        """Commits it; whether it was new. Raises DependencyDown."""
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, kept))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_waiting())
        return await kept

    async def _store_waiting(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._store_batch(batch)
        finally:
            self._storing = None

    async def _store_batch(self, batch: list[tuple[WebhookEvent, asyncio.Future[bool]]]) -> None:
        try:
            new = await self._store.store([event for event, _ in batch])
        except Exception as error:  # noqa: BLE001  # every error is passed to the waiting calls
            for _, kept in batch:
                if not kept.done():
                    kept.set_exception(error)
            return
        for event, kept in batch:
            if not kept.done():
                kept.set_result(event.id in new)
