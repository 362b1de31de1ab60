"""What one proxy counts of a key by itself: nothing is asked of anybody, and nothing is counted for ever."""

import pytest

from gateway.config.settings import LimitSettings
from gateway.kit.errors import ApiError
from gateway.limits import local_limits
from gateway.limits.claims import KeyLimits, RateLimits
from gateway.limits.local_limits import LocalLimits

NONE = RateLimits()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(**settings: int) -> tuple[LocalLimits, Clock]:
    clock = Clock()
    return LocalLimits(LimitSettings(**settings), monotonic=clock), clock


def refused(local: LocalLimits, key_limits: KeyLimits | None = None) -> ApiError:
    with pytest.raises(ApiError) as raised:
        local.begin("key", key_limits)
    assert (raised.value.status, raised.value.code) == (429, "rate_limit_exceeded")
    assert int(raised.value.headers["retry-after-ms"]) > 0
    return raised.value


def test_defaults_are_high_and_hold() -> None:
    local, clock = made()
    uses = [local.begin("key", None) for _ in range(1_000)]
    assert "1000 calls at the same time" in refused(local).message
    for use in uses:
        local.end(use, None)
    for _ in range(59_000):
        local.end(local.begin("key", None), None)
    assert "60000 requests per minute" in refused(local).message
    local.end(local.begin("another", None), None)
    clock.now += 0.1
    for _ in range(100):
        local.end(local.begin("key", None), None)
    refused(local)


def test_limits_of_the_key_take_the_place_of_the_defaults() -> None:
    local, clock = made(proxy_requests=1, proxy_concurrent=1)
    own = KeyLimits(RateLimits(requests=(3, 60.0), concurrent=2), NONE, ())
    uses = [local.begin("key", own) for _ in range(2)]
    assert "2 calls at the same time" in refused(local, own).message
    for use in uses:
        local.end(use, own)
    local.end(local.begin("key", own), own)
    error = refused(local, own)
    assert error.headers["x-ratelimit-limit-requests"] == "3"
    clock.now += int(error.headers["retry-after-ms"]) / 1000
    local.end(local.begin("key", own), own)
    only_tokens = KeyLimits(RateLimits(tokens=(5, 60.0)), NONE, ())
    local.end(local.begin("other", only_tokens), only_tokens)
    with pytest.raises(ApiError):
        local.begin("other", only_tokens)


def free_refused(local: LocalLimits) -> str:
    with pytest.raises(ApiError) as raised:
        local.take_free("key")
    assert (raised.value.status, raised.value.code) == (429, "rate_limit_exceeded")
    return raised.value.message


def test_a_refused_call_is_no_request_but_a_refused_one() -> None:
    local, clock = made(proxy_requests=1, free_requests=5)
    for _ in range(5):
        local.end(local.begin("key", None), None, ApiError(400, "x", "y"))
    assert "5 free or refused calls" in free_refused(local)
    local.end(local.begin("key", None), None)
    clock.now += 12.1
    local.take_free("key")


def test_a_flood_of_refused_calls_is_bounded_by_the_limit_of_calls() -> None:
    local, _ = made(proxy_requests=3, free_requests=5)
    for _ in range(5 + 3):
        local.end(local.begin("key", None), None, ApiError(400, "x", "y"))
    assert "3 requests per minute" in refused(local).message


def test_a_call_that_failed_for_us_is_not_held_against_its_key() -> None:
    local, _ = made(free_requests=1)
    for _ in range(3):
        local.end(local.begin("key", None), None, ApiError(503, "x", "y"))
    local.take_free("key")


def test_free_and_refused_calls_share_a_bucket_that_holds_off_no_other_call() -> None:
    local, _ = made(free_requests=10)
    for _ in range(5):
        local.take_free("key")
        local.end(local.begin("key", None), None, ApiError(400, "x", "y"))
    free_refused(local)
    for _ in range(100):
        local.end(local.begin("key", None), None)


def test_rows_of_calls_that_openai_refuses_are_bounded() -> None:
    local, clock = made(free_requests=10)
    for _ in range(10):
        use = local.begin("key", None)
        local.note_void(use)  # OpenAI's 404, say
        local.end(use, None)
    assert "10 free or refused calls" in refused(local).message
    local.take_free("key")
    clock.now += 6.1
    local.end(local.begin("key", None), None)


def test_debts_end() -> None:
    local, clock = made(free_requests=10)
    use = local.begin("key", None)
    for _ in range(1_000):
        local.note_void(use)
    clock.now += 121
    local.end(local.begin("key", None), None)


def test_zero_is_any_number() -> None:
    local, _ = made(proxy_requests=0, proxy_concurrent=0, free_requests=0)
    for _ in range(2_000):
        local.note_void(local.begin("key", None))
        local.take_free("key")


def test_keys_are_forgotten_but_not_while_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_limits, "KEYS_MAX", 100)
    local, _ = made(proxy_concurrent=1)
    running = local.begin("runs", None)
    for number in range(1_000):
        local.take_free(f"key {number}")
    assert len(local._uses) <= 101
    with pytest.raises(ApiError):
        local.begin("runs", None)
    local.end(running, None)
