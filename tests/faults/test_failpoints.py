"""kill -9 of a real process at each failpoint of the money path, at its first pass and at a later one.

Calls are made one after the other, so at most one of them is in a proxy when it dies: what its row must say is known.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Final
from uuid import uuid4

import pytest

from gateway.embedded import Embedded
from gateway.kit.failpoints import SITES
from tests.chaos.payers import make_payer
from tests.faults.scene import QUICK, rows_of, scene
from tests.support.gateway import Stack, stack

CALLS_MAX: Final = 200
LATER: Final = 2
ESTIMATED, TOLD, REPORTED = {"estimated"}, {"drained"}, {"reported"}
OF_THE_KILLED: Final = {
    ("proxy.opened", 1): ESTIMATED,
    ("proxy.opened", LATER): ESTIMATED,
    ("proxy.sent", 1): ESTIMATED,
    ("proxy.sent", LATER): ESTIMATED,
    ("proxy.headers", 1): ESTIMATED,
    ("proxy.headers", LATER): ESTIMATED,
    ("proxy.first_chunk", 1): ESTIMATED,
    ("proxy.first_chunk", LATER): ESTIMATED,
    # From here on the second call, a response, can be asked for at OpenAI, which keeps those that came to their end.
    ("proxy.noted", 1): ESTIMATED,
    ("proxy.noted", LATER): ESTIMATED | TOLD,
    ("proxy.ended", 1): ESTIMATED,
    ("proxy.ended", LATER): TOLD,
    ("proxy.settled", 1): REPORTED,
    ("proxy.settled", LATER): REPORTED,
    ("proxy.released", 1): REPORTED,
    ("proxy.released", LATER): REPORTED,
}
"""What the row of the call says during which the proxy died."""
ORPHANS: Final = 3


@pytest.fixture(scope="module")
def ground(embedded: Embedded, module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything but a gateway."""
    folder = tmp_path_factory.mktemp("ground")
    with stack(folder, module_database, embedded.redis_url, FLUSH__STREAM=f"usage-{uuid4().hex}", **QUICK) as made:
        made.prepare()
        asyncio.run(make_payer(made, module_database, made.user_id))
        yield made


@pytest.mark.parametrize("hit", [1, LATER])
@pytest.mark.parametrize("site", SITES)
async def test_killed_at(ground: Stack, site: str, hit: int) -> None:
    before = {row["id"] for row in await rows_of(ground)}
    with scene(ground, failpoint=f"{site}:{hit}") as playing:
        orphans = ORPHANS if site.startswith("sweep") else 0
        if orphans:
            await playing.left_in_the_middle(orphans)
        seen = await playing.call_until_killed(calls_max=CALLS_MAX)
        # One that was cut may never have been read: it was waiting for the proxy that died.
        calls = orphans + seen[200] + (site.startswith("proxy") and site != "proxy.released")
        found = await playing.verdict(len(before) + calls)
    assert found.clean, found
    rows = [row for row in await rows_of(ground) if row["id"] not in before]
    assert calls <= len(rows) <= orphans + seen[200] + seen[0], seen
    others = Counter(row["evidence"] for row in rows[orphans:])
    if site.startswith("proxy"):
        # A call that takes longer than a second has more than one note, so the second pass may be in the first call.
        killed = next((n for n, row in enumerate(rows) if row["evidence"] not in REPORTED), hit - 1)
        kept = LATER if rows[killed]["endpoint"] == "responses" else 1
        assert rows[killed]["evidence"] in OF_THE_KILLED[site, kept], others
        others = Counter(row["evidence"] for number, row in enumerate(rows) if number != killed)
    assert set(others) == REPORTED
    assert {row["evidence"] for row in rows[:orphans]} <= ESTIMATED
    assert not seen[500] + seen[502] + seen[503]
