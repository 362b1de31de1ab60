"""What bounds a key: Unkey's own limits first, our settings where it has none."""

import msgspec
import pytest

from gateway.config.settings import LimitSettings
from gateway.keys.verify import Identity, RateLimit, Verification
from gateway.limits.claims import RateLimits, openai_duration
from gateway.limits.key_limits import build_key_limits

DEFAULTS = LimitSettings(key_requests=60, user_tokens=1000, user_concurrent=9)
BUDGET = (
    '[{"id": "b", "user_id": "u", "limit_nano": 5, "period": "day", "hard": true, "since": "2026-11-23T00:00:00+00:00",'
    ' "api_key_id": null, "meeting_id": null, "model": null, "counts": "cost_usd"}]'
)


def limit(name: str, most: int, *, auto: bool = True, ms: int = 60_000, id_: str = "") -> RateLimit:
    return RateLimit(name=name, limit=most, duration=ms, auto_apply=auto, id=id_)


def verdict(
    own: list[RateLimit] | None = None, shared: list[RateLimit] | None = None, meta: bytes = b"null"
) -> Verification:
    identity = None if shared is None else Identity("u", shared)
    return Verification(True, "VALID", "key_1", identity=identity, ratelimits=own or [], meta=msgspec.Raw(meta))


def test_nothing_bounds_it() -> None:
    assert build_key_limits(verdict(), "[]", LimitSettings()) is None


def test_settings_where_unkey_has_none() -> None:
    key_limits = build_key_limits(verdict(), "[]", DEFAULTS)
    assert key_limits is not None
    assert key_limits.of_key == RateLimits(requests=(60, 60.0))
    assert key_limits.of_user == RateLimits(tokens=(1000, 60.0), concurrent=9)


def test_unkey_s_own_win_and_the_tightest_of_a_kind_holds() -> None:
    shared = [limit("tokens", 500, auto=False, id_="rl_1"), limit("concurrent", 3, auto=False, id_="rl_2")]
    own = [limit("default", 100, ms=1000), limit("requests", 30), limit("tokens", 70), *shared]
    key_limits = build_key_limits(verdict(own, shared, b'{"concurrent": 2, "plan": "pro"}'), BUDGET, DEFAULTS)
    assert key_limits is not None
    assert key_limits.of_key == RateLimits(requests=(30, 60.0), tokens=(70, 60.0), concurrent=2)
    assert key_limits.of_user == RateLimits(tokens=(500, 60.0), concurrent=3)
    assert [budget.limit_nano for budget in key_limits.budgets] == [5]


@pytest.mark.parametrize("meta", [b"null", b"[]", b'{"concurrent": "many"}', b'{"concurrent": 0}', b'"x"'])
def test_a_limit_that_only_counts_when_asked_for_and_somebody_else_s_meta_bound_nothing(meta: bytes) -> None:
    assert (
        build_key_limits(
            verdict([limit("images", 1, auto=False), limit("requests", 0)], [], meta), "[]", LimitSettings()
        )
        is None
    )


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0ms"), (12, "12ms"), (1000, "1s"), (1500, "1.5s"), (60_000, "1m0s"), (360_001, "6m0.001s")],
)
def test_durations_as_openai_writes_them(milliseconds: int, text: str) -> None:
    assert openai_duration(milliseconds) == text
