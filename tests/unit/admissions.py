"""An Admission with stand-ins for Unkey and Postgres, and a clock of the test's own."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.core.config import KeySettings, LimitSettings
from gateway.core.errors import ApiError, DependencyDown
from gateway.edges.keys import Identity, Keys, Verdict
from gateway.flows.proxy.admission import Admission, Principal

NOW_S = 1_800_000_000.0
KEY = "key_live_1"
UNKEY_DOWN = DependencyDown("unkey", "TimeoutError")
POSTGRES_DOWN = DependencyDown("postgres", "refused")


@dataclass
class Linked:
    user_id: str = "user"
    is_active: bool = True
    api_key_id: str | None = "api-key"
    key_is_active: bool | None = True
    budgets: str = "[]"


class FakeKeys(Keys):
    """Answers as told, after `gate` opens; counts the questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Verdict | DependencyDown = valid()
        self.gate = asyncio.Event()
        self.gate.set()

    async def verify(self, key: str) -> Verdict:
        self.asked.append(key)
        await self.gate.wait()
        if isinstance(self.answer, DependencyDown):
            raise self.answer
        return self.answer


class FakeAccounts:
    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str]] = []
        self.answer: Linked | DependencyDown | None = Linked()

    async def identity(self, external_id: str | None, unkey_key_id: str) -> Linked | None:
        self.asked.append((external_id, unkey_key_id))
        if isinstance(self.answer, DependencyDown):
            raise self.answer
        return self.answer


class House:
    """An Admission with its fakes and its clock."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 0.0
        self.keys, self.accounts = FakeKeys(), FakeAccounts()
        self.admission = Admission(
            self.keys,
            self.accounts,
            KeySettings(**settings),
            LimitSettings(),
            pepper=b"p" * 32,
            monotonic=lambda: self.now_s,
            unix_s=lambda: NOW_S + self.now_s,
        )

    async def admit(self, key: str = KEY) -> Principal:
        try:
            return await self.admission.admit(key)
        finally:
            for _ in range(5):
                await asyncio.sleep(0)  # a renewal off the call's path comes to its end

    async def refused(self, key: str = KEY) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.admit(key)
        assert KEY not in caught.value.message
        return caught.value


def valid(**changes: Any) -> Verdict:
    fields = {"valid": True, "code": "VALID", "key_id": "uk_1", "identity": Identity("ext")}
    return Verdict(**{**fields, **changes})


def no(code: str, **changes: Any) -> Verdict:
    return Verdict(valid=False, code=code, key_id="uk_1", **changes)
