"""To anyone but its owner an upstream object does not exist; a store that does not answer is never a guess."""

from collections.abc import Awaitable, Sequence

import pytest

from gateway.kit.errors import ApiError, DependencyDown
from gateway.ledger.stream import Buffer
from gateway.openai.request import References
from gateway.proxy.owners import Owners


class FakeBuffer(Buffer):
    """Owners in a dict; away when told so."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.away = self.behind = False
        self.asked = 0

    async def set_owners(self, object_ids: Sequence[str], user_id: str) -> None:
        self._ask()
        self.owners |= dict.fromkeys(object_ids, user_id)

    async def get_owners(self, object_ids: Sequence[str]) -> dict[str, str]:
        self._ask()
        return {object_id: self.owners[object_id] for object_id in object_ids if object_id in self.owners}

    async def is_behind(self) -> bool:
        self._ask()
        return self.behind

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise DependencyDown("redis", "away")


class FakeTable:
    """What Postgres knows; away when told so."""

    def __init__(self) -> None:
        self.objects: dict[str, str] = {}
        self.away = False
        self.asked = 0

    async def owners(self, object_ids: Sequence[str]) -> dict[str, str]:
        self.asked += 1
        if self.away:
            raise DependencyDown("postgres", "away")
        return {object_id: self.objects[object_id] for object_id in object_ids if object_id in self.objects}


class OwnersFakes:
    """Owners with their fakes and their clock."""

    def __init__(self) -> None:
        self.buffer, self.table = FakeBuffer(), FakeTable()
        self.owners = Owners(self.buffer, self.table)

    async def response(self, response_id: str, user_id: str = "me") -> int:
        return await self._status(self.owners.check_response(response_id, user_id))

    async def items(self, *item_ids: str, user_id: str = "me") -> int:
        return await self._status(self.owners.check(References(item_ids=item_ids), user_id))

    async def _status(self, check: Awaitable[None]) -> int:
        try:
            await check
        except ApiError as error:
            return error.status
        return 200


@pytest.mark.parametrize("where", ["memory", "redis", "postgres"])
async def test_mine_and_another_s(where: str) -> None:
    fakes = OwnersFakes()
    if where == "memory":
        await fakes.owners.remember(["resp_1"], "me")
        fakes.buffer.away = fakes.table.away = True
    elif where == "redis":
        fakes.buffer.owners["resp_1"] = "me"
        fakes.table.away = True
    else:
        fakes.table.objects["resp_1"] = "me"
        fakes.buffer.away = True
    assert await fakes.response("resp_1") == 200
    assert await fakes.response("resp_1", "other") == 404


async def test_nobody_s_and_nobody_can_tell() -> None:
    fakes = OwnersFakes()
    assert await fakes.response("resp_1") == 404
    for redis_away, postgres_away in ((True, False), (False, True), (True, True)):
        fakes.buffer.away, fakes.table.away = redis_away, postgres_away
        assert await fakes.response("resp_1") == 503
    fakes.buffer.away = fakes.table.away = False
    fakes.table.objects["resp_1"] = "me"  # an absence is not remembered
    assert await fakes.response("resp_1") == 200


async def test_an_owner_that_expired_before_postgres_had_it_is_not_denied() -> None:
    fakes = OwnersFakes()
    fakes.buffer.behind = True
    fakes.buffer.owners["resp_1"] = fakes.table.objects["resp_2"] = "me"
    assert [await fakes.response(f"resp_{i}") for i in (1, 2, 3)] == [200, 200, 503]
    assert await fakes.response("resp_1", "other") == 404
    assert await fakes.items("msg_1") == 503
    fakes.buffer.behind = False
    assert await fakes.response("resp_3") == 404


@pytest.mark.parametrize("odd", ["", "resp_" + "a" * 300, "resp_\x00", "resp_é", "resp_1\n", "a b", "../x", "' or 1=1"])
async def test_no_id_is_not_asked_about(odd: str) -> None:
    fakes = OwnersFakes()
    with pytest.raises(ApiError) as caught:
        await fakes.owners.check_response(odd, "me", param="previous_response_id")
    assert (caught.value.status, caught.value.code) == (404, "previous_response_not_found")
    assert odd not in caught.value.message or not odd
    with pytest.raises(ApiError) as caught:
        await fakes.owners.check(References(item_ids=(odd,)), "me")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "item_not_found", "input")
    assert odd not in caught.value.message or not odd
    assert fakes.buffer.asked + fakes.table.asked == 0


async def test_remembering_survives_redis_being_away() -> None:
    fakes = OwnersFakes()
    fakes.buffer.away = True
    await fakes.owners.remember(["resp_1"], "me")
    assert await fakes.response("resp_1") == 200


async def test_items_wherever_they_are_known() -> None:
    fakes = OwnersFakes()
    await fakes.owners.remember(["msg_1", "rs_1"], "me")
    fakes.buffer.owners |= {"msg_2": "me", "msg_4": "other"}
    fakes.table.objects |= {"msg_3": "me"}
    fakes.buffer.asked = fakes.table.asked = 0
    assert await fakes.items("msg_1", "rs_1") == 200
    assert fakes.buffer.asked + fakes.table.asked == 0
    assert await fakes.items("msg_1", "msg_2", "msg_3") == 200
    assert (fakes.buffer.asked, fakes.table.asked) == (1, 1)  # each store once, for all of them
    assert await fakes.items("msg_1", "msg_4") == 404
    assert await fakes.items("msg_1", "msg_5") == 404
    assert await fakes.items("msg_1", user_id="other") == 404


async def test_items_that_nobody_can_tell_of() -> None:
    fakes = OwnersFakes()
    await fakes.owners.remember(["msg_1"], "me")
    fakes.buffer.owners["msg_2"] = "me"
    fakes.table.away = True
    assert await fakes.items("msg_1", "msg_2") == 200
    assert await fakes.items("msg_1", "msg_3") == 503
    fakes.buffer.away, fakes.table.away = True, False
    fakes.table.objects["msg_3"] = "me"
    assert await fakes.items("msg_1", "msg_3") == 200
    assert await fakes.items("msg_4") == 503


async def test_a_response_and_its_items_are_checked_together() -> None:
    fakes = OwnersFakes()
    await fakes.owners.remember(["resp_1", "msg_1"], "me")
    await fakes.owners.check(References("resp_1", item_ids=("msg_1",)), "me")
    for refers in (References("resp_2", item_ids=("msg_1",)), References("resp_1", item_ids=("msg_2",))):
        with pytest.raises(ApiError) as caught:
            await fakes.owners.check(refers, "me")
        assert caught.value.status == 404
    await fakes.owners.check(References(compared_response_id="resp_1"), "me")
    with pytest.raises(ApiError) as caught:
        await fakes.owners.check(References(compared_response_id="resp_1"), "other")
    assert (caught.value.status, caught.value.code) == (404, "response_not_found")
    assert caught.value.param == "prompt_cache_options.comparison_response_id"
