"""To anyone but its owner an upstream object does not exist; a store that does not answer is never a guess."""

import pytest

from gateway.core.errors import ApiError, DependencyDown
from gateway.edges.buffer import Buffer
from gateway.flows.proxy.owners import Owners


class FakeBuffer(Buffer):
    """Owners in a dict; away when told so."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.away = False
        self.asked = 0

    async def set_owner(self, response_id: str, user_id: str) -> None:
        self._ask()
        self.owners[response_id] = user_id

    async def get_owner(self, response_id: str) -> str | None:
        self._ask()
        return self.owners.get(response_id)

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise DependencyDown("redis", "away")


class FakeTable:
    """What Postgres knows; away when told so."""

    def __init__(self) -> None:
        self.responses: dict[str, str] = {}
        self.away = False
        self.asked = 0

    async def response_owner(self, response_id: str) -> str | None:
        return self._ask(self.responses.get(response_id))

    def _ask(self, answer: str | None) -> str | None:
        self.asked += 1
        if self.away:
            raise DependencyDown("postgres", "away")
        return answer


class House:
    """Owners with their fakes and their clock."""

    def __init__(self) -> None:
        self.buffer, self.table = FakeBuffer(), FakeTable()
        self.owners = Owners(self.buffer, self.table)

    async def response(self, response_id: str, user_id: str = "me") -> int:
        try:
            await self.owners.check_response(response_id, user_id)
        except ApiError as error:
            return error.status
        return 200


@pytest.mark.parametrize("where", ["memory", "redis", "postgres"])
async def test_mine_and_another_s(where: str) -> None:
    house = House()
    if where == "memory":
        await house.owners.remember("resp_1", "me")
        house.buffer.away = house.table.away = True
    elif where == "redis":
        house.buffer.owners["resp_1"] = "me"
        house.table.away = True
    else:
        house.table.responses["resp_1"] = "me"
        house.buffer.away = True
    assert await house.response("resp_1") == 200
    assert await house.response("resp_1", "other") == 404


async def test_nobody_s_and_nobody_can_tell() -> None:
    house = House()
    assert await house.response("resp_1") == 404
    for redis_away, postgres_away in ((True, False), (False, True), (True, True)):
        house.buffer.away, house.table.away = redis_away, postgres_away
        assert await house.response("resp_1") == 503
    house.buffer.away = house.table.away = False
    house.table.responses["resp_1"] = "me"  # an absence is not remembered
    assert await house.response("resp_1") == 200


@pytest.mark.parametrize("odd", ["", "resp_" + "a" * 300, "resp_\x00", "resp_é", "resp_1\n", "a b", "../x", "' or 1=1"])
async def test_no_id_is_not_asked_about(odd: str) -> None:
    house = House()
    with pytest.raises(ApiError) as caught:
        await house.owners.check_response(odd, "me", param="previous_response_id")
    assert (caught.value.status, caught.value.code) == (404, "previous_response_not_found")
    assert odd not in caught.value.message or not odd
    assert house.buffer.asked + house.table.asked == 0


async def test_remembering_survives_redis_being_away() -> None:
    house = House()
    house.buffer.away = True
    await house.owners.remember("resp_1", "me")
    assert await house.response("resp_1") == 200
