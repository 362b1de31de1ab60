"""Asks Unkey about keys, and decides when its answer is trusted.

A root key that may not verify makes Unkey call every key unknown, with status 200 (Unkey's docs). So where there
is a canary, a key that must verify, nobody is turned away as unknown unless Unkey still knows the canary: until then
such an answer counts as none. Nor does one without permissions, while the canary comes without its own: that answers
leave them out is allowed by Unkey's API description, and a key without any may call everything.
"""

import asyncio
import math
import re
from collections.abc import Callable
from typing import Final

import structlog

from gateway.access.breaker import Breaker
from gateway.access.verification_results import lacks_bounds
from gateway.keys.permissions import are_told
from gateway.keys.verify import AskedTooOften, Keys, Verification
from gateway.kit.errors import DependencyDown

DOUBTED: Final = ("NOT_FOUND", "FORBIDDEN")
"""What Unkey says of every key when the root key, or the workspace, is the trouble."""
TRUSTED_S: Final = 30.0
"""Seconds for which a canary that was known answers for other keys that nobody has seen before."""
SHOWN_S: Final = 300.0
"""Seconds for which a canary that came with its permissions answers for keys that have none."""
AGAIN_S: Final = 2.0
"""Seconds after which an unknown canary is asked about again."""
TAG_CHARS_MAX: Final = 100
_NOT_IN_TAGS: Final = re.compile(r"[^A-Za-z0-9_.:-]")
_log: Final = structlog.get_logger("gateway.proxy")


class KeyVerifier:
    """One per process."""

    def __init__(self, keys: Keys, breaker: Breaker, canary: str | None, *, monotonic: Callable[[], float]) -> None:
        self._keys: Final = keys
        self._breaker: Final = breaker
        self._canary: Final = canary
        self._monotonic: Final = monotonic
        self._known_s = -math.inf
        """When Unkey last knew the canary."""
        self._unknown_s = -math.inf
        self._untold = False
        """Whether the canary, a bound key, last came without its permissions."""
        self._untold_since_s = math.inf
        self._told_s = -math.inf
        """When any other key last came with permissions: then only the canary has lost its own."""
        self._judged_s = math.inf
        """When that was; never for a canary that is not bound."""
        self._checking: asyncio.Task[bool] | None = None

    @property
    def circuit_is_open(self) -> bool:
        """Whether Unkey has failed too often to be asked."""
        return self._breaker.is_open

    @property
    def is_doubted(self) -> bool:
        """Whether Unkey did not know the canary, or not its permissions, when it was last asked."""
        return self._is_unknown or self._is_untold

    @property
    def _is_untold(self) -> bool:
        return self._untold and self._told_s < self._untold_since_s

    @property
    def _is_unknown(self) -> bool:
        return self._unknown_s > self._known_s

    async def ask(self, key: str, *, endpoint: str = "", model: str = "", was_good: bool = False) -> Verification:
        """Unkey's verdict on `key`. `endpoint` and `model`, where known, become tags of Unkey's analytics.

        `was_good`: it has let this key in before; then the canary is asked about again before a no is believed.
        Raises DependencyDown: no answer, or none that can be believed.
        """
        asked_s = self._monotonic()
        verdict = await self._verify(key, tags_of(endpoint, model))
        if verdict.code in DOUBTED and key != self._canary:
            since = asked_s if was_good else asked_s - TRUSTED_S
            if not await self._canary_is_known(since):
                raise DependencyDown("unkey", "it does not know the canary either: the root key may lack verify_key")
        if verdict.code == "VALID" and key != self._canary:
            self._told_s = self._monotonic() if verdict.permissions else self._told_s
            if lacks_bounds(verdict):
                await self._canary_is_known(asked_s)
            elif self._untold or not verdict.permissions:
                self._look_again()
            if self._is_untold and not are_told(verdict.permissions or ()):
                raise DependencyDown("unkey", "it leaves permissions out of its answers, also those of the canary")
        return verdict

    async def check(self) -> bool:
        """Whether Unkey's answers can be believed now; True without a canary. Raises DependencyDown."""
        if self._canary is None:
            return True
        verdict = await self._verify(self._canary, [])
        doubted, now = self._is_unknown, self._monotonic()
        if verdict.code not in DOUBTED:
            self._known_s = now
            if doubted:
                _log.warning("canary key is known again")
            if verdict.code == "VALID":
                self._judge_permissions(verdict, now)
            return True
        self._unknown_s = now
        if not doubted:
            look = "UNKEY_ROOT_KEY may lack verify_key for the API of keys.canary, or the canary is gone"
            _log.error("canary key is unknown", code=verdict.code, look=look)
        return False

    async def _canary_is_known(self, since_s: float) -> bool:
        if self._canary is None or self._known_s >= since_s:
            return True
        if self._checking is None and self._is_unknown and self._monotonic() < self._unknown_s + AGAIN_S:
            return False
        return await asyncio.shield(self._look())

    def _judge_permissions(self, canary: Verification, now: float) -> None:
        """Whether the canary, if it is a bound key, came with its permissions."""
        untold, self._untold = self._untold, lacks_bounds(canary)
        if self._untold and not untold:
            self._untold_since_s = now
            look = "Unkey leaves permissions out, or somebody took those of keys.canary"
            _log.error("canary key comes without its permissions", look=look)
        if untold and not self._untold:
            _log.warning("canary key comes with its permissions again")
        if self._untold or are_told(canary.permissions or ()):
            self._judged_s = now

    def _look_again(self) -> None:
        """Checks a bound canary from time to time, on behalf of keys without permissions, which do not wait for it."""
        if self._monotonic() >= self._judged_s + (AGAIN_S if self._untold else SHOWN_S):
            self._look()

    def _look(self) -> "asyncio.Task[bool]":
        """The one check of the canary that is in progress."""
        if self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(self.check())
            self._checking.add_done_callback(self._finish_check)
        return self._checking

    def _finish_check(self, task: "asyncio.Task[bool]") -> None:
        self._checking = None
        if not task.cancelled():
            task.exception()  # told to everybody who waits, if anybody still does

    async def _verify(self, key: str, tags: list[str]) -> Verification:
        self._breaker.enter()
        try:
            verdict = await self._keys.verify(key, tags)
        except AskedTooOften as busy:
            _log.warning("unkey asks to wait", seconds=busy.retry_after_s)
            self._breaker.pause(busy.retry_after_s)
            raise
        except BaseException as error:
            if isinstance(error, DependencyDown):
                _log.warning("unkey did not answer", detail=error.detail)  # nothing is asked while the circuit is open
            self._breaker.record_failure()
            raise
        self._breaker.record_success()
        return verdict


def tags_of(endpoint: str, model: str) -> list[str]:
    """Tags of one verification; what a client has sent is cut and cleaned."""
    named = (("endpoint", endpoint), ("model", model))
    return [f"{name}:{_NOT_IN_TAGS.sub('_', value[:TAG_CHARS_MAX])}" for name, value in named if value]
