"""A root key that loses its permission: the stand-in then calls every key unknown, as Unkey does."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
import pytest

from gateway.access.admission import Admission
from gateway.access.identities import KeyOwners
from gateway.config.settings import KeySettings, LimitSettings
from gateway.keys.verify import Keys
from gateway.kit.errors import ApiError
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.stores.postgres import Pool
from tests.support.stand_ins import Clock, asked_by, control, sandbox_at

USER = "00000000-0000-7000-8000-00000000000a"


class SandboxedAdmission(NamedTuple):
    admission: Admission
    clock: Clock
    sandbox: Sandbox

    async def status(self, key: str) -> int:
        try:
            await self.admission.admit(key)
        except ApiError as error:
            return error.status
        return 200


@pytest.fixture
async def sandboxed(ledger: Ledger, pool: Pool) -> AsyncIterator[SandboxedAdmission]:
    """An admission with a canary, in front of the stand-in, with one user."""
    await pool.execute("insert into users (id, email) values ($1, 'ann@example.com')", USER)
    clock = Clock(0.0)
    async with sandbox_at(clock) as sandbox, aiohttp.ClientSession() as session:
        for key in ("sk_ann", "sk_bob", "sk_canary"):
            await control(sandbox, "unkey", "/keys", key=key, external_id=USER)
        keys = Keys(session, sandbox.unkey_base_url, credentials.UNKEY_ROOT_KEY, timeout_s=5)
        admission = Admission(
            asked_by(keys, clock, canary="sk_canary"),
            KeyOwners(ledger.pool),
            KeySettings(require_row=False),
            LimitSettings(),
            pepper=b"p",
            monotonic=clock,
            unix_s=clock,
            draw=lambda _: 0,
        )
        yield SandboxedAdmission(admission, clock, sandbox)


async def test_good_customers_are_not_turned_away(sandboxed: SandboxedAdmission) -> None:
    assert (await sandboxed.status("sk_ann"), await sandboxed.status("sk_nobody")) == (200, 401)
    await control(sandboxed.sandbox, "unkey", "/root", permissions=["create_key"])
    sandboxed.clock.now = 31
    # Known keys go on; the others' state is unknown.
    assert (await sandboxed.status("sk_ann"), await sandboxed.status("sk_bob"), await sandboxed.status("sk_new")) == (
        200,
        503,
        503,
    )
    sandboxed.clock.now = 620
    assert await sandboxed.status("sk_ann") == 200
    sandboxed.clock.now = 631
    assert await sandboxed.status("sk_ann") == 503
    await control(sandboxed.sandbox, "unkey", method="DELETE")
    sandboxed.clock.now = 640
    assert (await sandboxed.status("sk_ann"), await sandboxed.status("sk_bob"), await sandboxed.status("sk_new")) == (
        200,
        200,
        401,
    )


async def test_a_key_that_is_deleted_is_refused_all_the_same(sandboxed: SandboxedAdmission) -> None:
    assert await sandboxed.status("sk_ann") == 200
    principal = await sandboxed.admission.admit("sk_ann")
    await control(sandboxed.sandbox, "unkey", "/revoke", key_id=principal.unkey_key_id)
    sandboxed.clock.now = 31
    assert await sandboxed.status("sk_ann") == 401
