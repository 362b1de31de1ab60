"""Whose an answer's items are: in Redis until the row is in Postgres, and then only there."""

import msgspec

from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.openai.objects import UpstreamObjects
from tests.ledger.test_flush import Clock, entries, some_calls, writer


async def test_owners_of_items_leave_redis_once_postgres_has_them(buffer: Buffer, ledger: Ledger) -> None:
    events = [
        msgspec.structs.replace(event, endpoint="responses", item_ids=(f"rs_{number}", f"msg_{number}"))
        for number, event in enumerate(await some_calls(ledger, 3))
    ]
    items = [item for event in events for item in event.item_ids]
    await buffer.set_owners([*items, "msg_of_a_running_call"], events[0].user_id)
    await buffer.append(entries(events))
    assert await writer(buffer, ledger, Clock()).step_once() == 3
    assert await buffer.get_owners([*items, "msg_of_a_running_call"]) == {"msg_of_a_running_call": events[0].user_id}
    assert await UpstreamObjects(ledger.pool).owners(items) == {
        item: event.user_id for event in events for item in event.item_ids
    }
    # A batch of which something went to quarantine leaves them: Postgres may not know these owners.
    bad = msgspec.structs.replace((await some_calls(ledger, 1, 6))[0], model="a\x00b", item_ids=("msg_bad",))
    await buffer.set_owners(["msg_bad"], bad.user_id)
    await buffer.append(entries([bad]))
    assert await writer(buffer, ledger, Clock()).step_once() == 1
    assert await buffer.get_owners(["msg_bad"]) == {"msg_bad": bad.user_id}
