"""An Admission with stand-ins for Unkey and Postgres, and a clock of the test's own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

import pytest

from gateway.access.admission import Admission, Principal
from gateway.access.breaker import Breaker
from gateway.access.good_keys import GoodKeys
from gateway.access.verification import KeyVerifier
from gateway.config.settings import KeySettings, LimitSettings
from gateway.keys.verify import Identity, Keys, Verification
from gateway.kit.errors import ApiError, DependencyDown

NOW_S = 1_800_000_000.0
KEY = "key_live_1"
CANARY = "key_canary"
UNKEY_DOWN = DependencyDown("unkey", "TimeoutError")
POSTGRES_DOWN = DependencyDown("postgres", "refused")


@dataclass
class Linked:
    user_id: str = "user"
    is_active: bool = True
    api_key_id: str | None = "api-key"
    key_is_active: bool | None = True
    key_enabled_at: datetime | None = None
    key_expires_at: datetime | None = None
    budgets: str = "[]"


class FakeKeys(Keys):
    """Answers as told, after `gate` opens; counts the questions, but for those about the canary."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tags: list[list[str]] = []
        self.canary: Verification | DependencyDown = valid()
        self.canary_asked = 0
        self.answer: Verification | DependencyDown = valid()
        self.gate = asyncio.Event()
        self.gate.set()

    async def verify(self, key: str, tags: Sequence[str] = ()) -> Verification:
        if key == CANARY:
            self.canary_asked += 1
            answer = self.canary
        else:
            self.asked.append(key)
            self.tags.append(list(tags))
            await self.gate.wait()
            answer = self.answer
        if isinstance(answer, DependencyDown):
            raise answer
        return answer


class FakeAccounts:
    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str]] = []
        self.answer: Linked | DependencyDown | None = Linked()

    async def identity(self, external_id: str | None, unkey_key_id: str) -> Linked | None:
        self.asked.append((external_id, unkey_key_id))
        if isinstance(self.answer, DependencyDown):
            raise self.answer
        return self.answer


class AdmissionFakes:
    """An Admission with its fakes and its clock."""

    def __init__(self, *, canary: str | None = None, good_keys: GoodKeys | None = None, **settings: Any) -> None:
        self.now_s = 0.0
        self.keys, self.accounts = FakeKeys(), FakeAccounts()
        self.open_s = 3.0
        """How long the circuit to Unkey stays open."""
        breaker = Breaker(monotonic=lambda: self.now_s, uniform=lambda *_: self.open_s)
        self.verifier = KeyVerifier(self.keys, breaker, canary, monotonic=lambda: self.now_s)
        self.admission = Admission(
            self.verifier,
            self.accounts,
            KeySettings(**settings),
            LimitSettings(),
            pepper=b"p" * 32,
            monotonic=lambda: self.now_s,
            unix_s=lambda: NOW_S + self.now_s,
            draw=Random(7).randrange,
            good_keys=good_keys,
        )

    async def admit(self, key: str = KEY, *, endpoint: str = "", peer: str | None = None) -> Principal:
        """As the proxy does it, renewal included."""
        try:
            principal = await self.admission.admit(key, endpoint=endpoint, peer=peer)
            if principal.due:
                self.admission.renew(key, endpoint=endpoint, model="gpt-5.1")
            return principal._replace(due=False)
        finally:
            for _ in range(5):
                await asyncio.sleep(0)  # a renewal off the call's path comes to its end

    async def refused(self, key: str = KEY, *, peer: str | None = None) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.admit(key, peer=peer)
        assert KEY not in caught.value.message
        return caught.value


def valid(**changes: Any) -> Verification:
    fields = {"valid": True, "code": "VALID", "key_id": "uk_1", "identity": Identity("ext")}
    return Verification(**{**fields, **changes})


def no(code: str, **changes: Any) -> Verification:
    return Verification(valid=False, code=code, key_id="uk_1", **changes)
