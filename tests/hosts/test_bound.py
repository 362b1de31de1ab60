"""What is lost with a host's disk: one test for each line of docs/faults.md, "What is lost with a disk"."""

import shutil

import pytest

from gateway.kit.errors import DependencyDown
from gateway.ledger.stream import Buffer
from tests.hosts.scene import RENEW_S, HostScene
from tests.support.events import sums_are_right


async def rows_after_the_loss(scene: HostScene) -> dict[str, str]:
    """The evidence of each call that has a row, once the host and its disk are gone for good."""
    shutil.rmtree(scene.shipping.folder)
    await scene.lose()
    await scene.flush().step_once()
    await scene.worker().step_once()
    assert await sums_are_right(scene.pool)
    return {row["id"]: row["evidence"] for row in await scene.pool.fetch("select id::text, evidence from openai_usage")}


async def test_the_disk_alone(scene: HostScene) -> None:
    """The last step of the keeper divides: what it has seen has a row, whatever came after it has none."""
    settled, open_before, ended_after = [await scene.open() for _ in range(3)]
    await scene.settle(settled)
    await scene.step()
    await scene.settle(ended_after)
    await scene.settle(await scene.open())
    await scene.open()
    assert await rows_after_the_loss(scene) == {
        settled: "reported",
        open_before: "estimated",
        ended_after: "estimated",
    }


async def test_redis_at_the_same_time(scene: HostScene) -> None:
    confirmed, unconfirmed = await scene.open(), await scene.open()
    await scene.settle(confirmed)
    await scene.step()
    await scene.flush().step_once()
    await scene.settle(unconfirmed)
    await scene.open()
    await scene.step()
    await scene.redis.flushdb()
    assert await rows_after_the_loss(scene) == {confirmed: "reported"}


async def test_redis_before_the_disk_and_back(scene: HostScene, buffer: Buffer) -> None:
    settled, in_flight = await scene.open(), await scene.open()
    await scene.settle(settled)
    await scene.step()
    await scene.redis.flushdb()
    await buffer.ensure_group()
    await scene.step(RENEW_S)
    await scene.step()
    assert await rows_after_the_loss(scene) == {settled: "reported", in_flight: "estimated"}


async def test_redis_before_the_disk_and_away_since(scene: HostScene) -> None:
    before, during = await scene.open(), await scene.open()
    await scene.step()

    async def away(*_arguments: object, **_options: object) -> list[bytes]:
        raise DependencyDown("redis", "away")

    scene.shipping.buffer.append = away  # type: ignore[method-assign]
    scene.calls.show = away  # type: ignore[assignment, method-assign]
    await scene.settle(during)
    await scene.open()
    for _ in range(2):
        try:
            await scene.step()
        except DependencyDown:
            continue
    assert await rows_after_the_loss(scene) == {before: "estimated", during: "estimated"}


async def test_postgresql_before_the_disk_and_away_for_long(scene: HostScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many settled calls as the keeper holds it reads no further, so Redis hears of no later ones."""
    monkeypatch.setattr("gateway.ledger.ship.SETTLED_MAX", 2)
    before = [await scene.open() for _ in range(2)]
    for event_id in before:
        await scene.settle(event_id)
    await scene.step()
    await scene.settle(await scene.open())
    await scene.open()
    for _ in range(2):
        await scene.step()
    assert await rows_after_the_loss(scene) == dict.fromkeys(before, "reported")


async def test_postgresql_before_the_disk(scene: HostScene) -> None:
    """Nothing was confirmed, nor the lease renewed: Redis has it all."""
    settled, in_flight = await scene.open(), await scene.open()
    await scene.settle(settled)
    await scene.shipping.after(0.1)
    await scene.presence.show_calls()
    assert await rows_after_the_loss(scene) == {settled: "reported", in_flight: "estimated"}
