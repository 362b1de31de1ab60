"""Whose drains have to end: those of a key that has too many, and of the key with the most where all are too many."""

from gateway.config.settings import UpstreamSettings
from gateway.proxy.active_relays import ActiveRelays

BOUNDS = UpstreamSettings(drains_max=6, drains_per_key_max=4)


def drains(**of_key: int) -> ActiveRelays:
    relays = ActiveRelays()
    for key, number in of_key.items():
        for _ in range(number):
            relays.begin_drain(key)
    return relays


def test_a_key_has_its_own_bound() -> None:
    relays = drains(a=5, b=1)
    assert relays.is_too_many("a", BOUNDS)
    assert not relays.is_too_many("b", BOUNDS)
    relays.end_drain("a")
    assert not relays.is_too_many("a", BOUNDS)


def test_beyond_the_bound_of_the_process_the_key_with_the_most_gives_up() -> None:
    relays = drains(a=4, b=2, c=1)
    assert [key for key in "abc" if relays.is_too_many(key, BOUNDS)] == ["a"]
    relays.end_drain("a")
    assert not any(relays.is_too_many(key, BOUNDS) for key in "abc")


def test_a_key_that_is_done_is_forgotten() -> None:
    relays = drains(a=1)
    relays.end_drain("a")
    assert (relays.running, len(relays._of_key)) == (0, 0)
