"""Facts about one connection add up the same in any order, and the better source wins, whatever the values are."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.meetings.daily_events import REST, WEBHOOK, PersonSeen
from gateway.meetings.people import Person, person_from, person_of, plain_person, sessions_of
from gateway.meetings.timeline import Session, SourcedInstant

T0 = datetime(2026, 11, 23, 10, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


instants = st.integers(0, 3).map(at)
FACTS = st.builds(
    PersonSeen,
    session_id=st.just("s"),
    room=st.just("r"),
    joined_at=instants,
    left_at=st.none() | st.integers(3, 6).map(at),
    name=st.none() | st.sampled_from(["Ann", "Bob"]),
    user_id=st.none() | st.sampled_from(["u1", "u2"]),
    owner=st.booleans(),
    rank=st.just(WEBHOOK),
    daily_id=st.none(),
) | st.builds(
    PersonSeen,
    session_id=st.just("s"),
    room=st.just("r"),
    joined_at=instants,
    left_at=st.none() | st.integers(3, 6).map(at),
    name=st.none() | st.sampled_from(["Ann", "Bob"]),
    user_id=st.none() | st.sampled_from(["u1", "u2"]),
    owner=st.just(False),
    rank=st.just(REST),
    daily_id=st.sampled_from(["m1", "m2"]),
)


@given(st.lists(FACTS, min_size=1, max_size=4))
def test_no_order_and_no_repeat_changes_what_is_known(facts: list[PersonSeen]) -> None:
    people = [person_of(fact, f"e{number}") for number, fact in enumerate(facts)]
    found = reduce(Person.merge, people)
    assert all(reduce(Person.merge, order) == found for order in permutations([*people, people[0]]))
    name = None if found.name is None else found.name.text
    for daily_id in ("m1", "m2"):
        assert person_from("s", name, plain_person(found, daily_id)) == found


@pytest.mark.parametrize(("webhook", "rest"), [("aaa", "zzz"), ("zzz", "aaa")])
def test_the_better_source_wins(webhook: str, rest: str) -> None:
    exact = person_of(PersonSeen("s", "r", at(0), None, webhook, webhook, True, WEBHOOK), "e1")
    coarse = person_of(PersonSeen("s", "r", at(0), at(9), rest, rest, False, REST, "m1"), "e2")
    for found in (exact.merge(coarse), coarse.merge(exact)):
        assert (found.name and found.name.text, found.user_id and found.user_id.text) == (webhook, webhook)
        assert (found.owner, found.joined, found.left) == (True, SourcedInstant(at(0), WEBHOOK), None)


def session(name: str, begins: float, ends: float | None, *, rank: int = WEBHOOK, listed: bool = False) -> Session:
    return Session(
        name, SourcedInstant(at(begins), rank), None if ends is None else SourcedInstant(at(ends), rank), listed
    )


@pytest.mark.parametrize(
    ("joined", "left", "sessions", "found"),
    [
        (0, 60, [session("a", 0.4, 30), session("b", 30, None)], ["a", "b"]),
        (0, 60, [session("b", 30, None)], ["b"]),  # the first has not been told yet
        (0, 30, [session("a", 0.4, 30), session("b", 30, None)], ["a"]),
        (0, 30.1, [session("a", 0.4, 30), session("b", 30, None, rank=REST)], ["a"]),  # REST's border is coarse
        (0, 0.3, [session("a", 0.5, 30)], []),  # gone before it began
        (31, 31.2, [session("a", 0, 30)], []),
        (30.1, 31.2, [session("a", 0, 30, rank=REST)], ["a"]),  # its end may be told too early
        (0, None, [session("a", 0.4, 30), session("b", 30, 60), session("c", 60.5, None)], ["a", "b", "c"]),
        (0, None, [session("a", 0.4, 30), session("b", 31.5, None)], ["a"]),
        (0, None, [session("a", 0.4, 30), session("b", 30, 60, listed=True), session("c", 60, None)], ["a"]),
        (0, None, [session("a", 0.4, None), session("b", 30, None)], ["a"]),  # nobody saw it end
        (-5, None, [session("a", 0.4, None)], []),
    ],
)
def test_where_a_connection_was(joined: float, left: float | None, sessions: list[Session], found: list[str]) -> None:
    fact = PersonSeen("s", "r", at(joined), None if left is None else at(left), None, None, False, WEBHOOK)
    assert [one.daily_id for one in sessions_of(person_of(fact, "e"), sessions)] == found
