"""Rooms of the Daily.co stand-in: sessions by its own rules, and what it tells that a receiver must live with."""

from typing import Any

from gateway.sandbox.server import Sandbox
from tests.sandbox.daily.test_daily import NOW, Receiver, act, ask, deliveries, receiver, register, sandbox

__all__ = ["receiver", "sandbox"]


async def told(sandbox: Sandbox, receiver: Receiver) -> list[tuple[str, dict[str, Any]]]:
    """Types and payloads, by the time they are about: deliveries run side by side."""
    await deliveries(sandbox)
    return [(event["type"], event["payload"]) for event in receiver.events()]


async def meetings(sandbox: Sandbox) -> list[dict[str, Any]]:
    """As REST has them, the oldest first."""
    found: list[dict[str, Any]] = (await ask(sandbox, "GET", "/v1/meetings"))[1]["data"]
    return found[::-1]


async def test_a_visit_under_30_seconds_is_no_session(sandbox: Sandbox, receiver: Receiver) -> None:
    await register(sandbox, receiver)
    who = (await act(sandbox, "enter", room="r", name="Ann", at=NOW))["session_id"]
    await act(sandbox, "exit", session_id=who, at=NOW + 29)
    assert (await act(sandbox, "pass", at=NOW + 9000))["meetings"] == []
    assert {kind for kind, _ in await told(sandbox, receiver)} == {"participant.joined", "participant.left"}
    assert await meetings(sandbox) == []


async def test_a_session_begins_alone_or_with_the_second_person(sandbox: Sandbox) -> None:
    await act(sandbox, "enter", room="alone", name="Ann", at=NOW)
    await act(sandbox, "enter", room="both", name="Ann", at=NOW + 100)
    await act(sandbox, "enter", room="both", name="Bob", at=NOW + 124)
    await act(sandbox, "pass", at=NOW + 200)
    alone, both = await meetings(sandbox)
    assert (alone["room"], alone["start_time"], both["start_time"]) == ("alone", NOW + 30, NOW + 124)
    assert [one["join_time"] for one in both["participants"]] == [NOW + 100, NOW + 124]


async def test_ten_minutes_alone_end_a_session_and_begin_one(sandbox: Sandbox, receiver: Receiver) -> None:
    await register(sandbox, receiver)
    ann = (await act(sandbox, "enter", room="r", name="Ann", at=NOW))["session_id"]
    bob = (await act(sandbox, "enter", room="r", name="Bob", at=NOW + 10))["session_id"]
    await act(sandbox, "exit", session_id=bob, at=NOW + 1000)
    await act(sandbox, "pass", at=NOW + 1599)
    assert len(await meetings(sandbox)) == 1
    cem = (await act(sandbox, "enter", room="r", name="Cem", at=NOW + 2000))["session_id"]
    await act(sandbox, "exit", session_id=ann, at=NOW + 3000)
    await act(sandbox, "exit", session_id=cem, at=NOW + 3500)  # less than ten minutes alone
    first, second = await meetings(sandbox)
    assert (first["start_time"], first["duration"], second["start_time"]) == (NOW + 10, 1590, NOW + 1600)
    assert second["duration"] == 1900
    assert [(one["user_name"], one["join_time"] - NOW, one["duration"]) for one in second["participants"]] == [
        ("Ann", 1600, 1400), ("Cem", 2000, 1500),
    ]  # fmt: skip
    assert [one["participant_id"] for one in first["participants"]] == [ann, bob]
    await act(sandbox, "faults", whole_stays=True)
    assert (await meetings(sandbox))[1]["participants"][0]["join_time"] == NOW
    payloads = await told(sandbox, receiver)
    (left,) = [said for kind, said in payloads if kind == "participant.left" and said["session_id"] == ann]
    assert (left["joined_at"], left["duration"], "meeting_id" in left) == (NOW, 3000, False)
    assert sum(kind == "meeting.started" for kind, _ in payloads) == 2
    assert sum(kind == "participant.joined" for kind, _ in payloads) == 3


async def test_lists_that_say_less_and_ids_that_differ(sandbox: Sandbox, receiver: Receiver) -> None:
    await register(sandbox, receiver)
    await act(sandbox, "faults", short_lists=1, encoded_user_ids=True, bare_ends=True, room_names=True)
    ann = (await act(sandbox, "enter", room="r", name="Ann", user_id="ann", at=NOW))["session_id"]
    bob = (await act(sandbox, "enter", room="r", name="Bob", at=NOW + 1))["session_id"]
    for who in (ann, bob):
        await act(sandbox, "exit", session_id=who, at=NOW + 60)
    (found,) = await meetings(sandbox)
    assert (found["max_participants"], len(found["participants"])) == (2, 1)
    assert found["participants"][0]["user_id"] == "YW5u"
    everybody = (await ask(sandbox, "GET", f"/v1/meetings/{found['id']}/participants"))[1]["data"]
    assert len(everybody) == 2
    for kind, said in await told(sandbox, receiver):
        assert "duration" not in said
        assert ("start_ts" in said) == (kind == "meeting.started")
        assert ("room" in said) == kind.startswith("meeting.")
        assert said.get("user_id") in (None, "ann", bob)


async def test_the_list_of_webhooks_is_the_whole_domain_s(sandbox: Sandbox, receiver: Receiver) -> None:
    ours = await register(sandbox, receiver)
    await act(
        sandbox, "webhooks", foreign="odd", overlay={"state": "ACTVIE", "failedCount": 1.0}, without=["retryType"]
    )
    listed = (await ask(sandbox, "GET", "/v1/webhooks"))[1]
    assert (len(listed), listed[0]["eventTypes"], listed[0]["state"]) == (6, None, 1)
    assert (listed[-1]["uuid"], listed[-1]["state"], "retryType" in listed[-1]) == (ours["uuid"], "ACTVIE", False)
    assert listed[-1]["createdAt"] == "2026-11-18T11:06:40.000Z"
