"""A database, the Unkey stand-in, and the command line between them: what tests of `gateway keys` start from."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from gateway.accounts.store import Accounts
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.sandbox.unkey.keys import Key
from gateway.stores.postgres import Pool
from tests.support.invoke import Done, gateway
from tests.support.stand_ins import Clock, control, sandbox_at


class KeySides:
    """Both sides of a key."""

    def __init__(self, sandbox: Sandbox, database_url: str, ledger: Ledger, pool: Pool) -> None:
        self.sandbox = sandbox
        self.began_at = datetime.fromtimestamp(sandbox.unkey.now_s(), UTC)
        self.ledger = ledger
        self.pool = pool
        self.env = {
            "DATABASE_URL": database_url,
            "UNKEY_ROOT_KEY": credentials.UNKEY_ROOT_KEY,
            "UNKEY_API_ID": credentials.UNKEY_API_ID,
            "UNKEY_BASE_URL": sandbox.unkey_base_url,
        }

    async def key(self, name: str, **fields: Any) -> tuple[str, str]:
        """A key `key_<name>` with the secret `sk_<name>…` of the user <name>@example.com on both sides: our id of it,
        and the user's. `fields` are the stand-in's."""
        user = await Accounts(self.ledger.pool).create_user(f"{name}@example.com")
        self.at_unkey(name, external_id=user, name=name, **fields)
        return await Accounts(self.ledger.pool).link_key(user, f"key_{name}", name=name), user

    def at_unkey(self, who: str, /, **fields: Any) -> Key:
        """A key that only Unkey has."""
        api_id = credentials.UNKEY_API_ID
        return self.sandbox.unkey.add_key(f"sk_{who}_canary_012", api_id=api_id, key_id=f"key_{who}", **fields)

    def kept(self, key_id: str) -> Key:
        """A key as Unkey has it."""
        return self.sandbox.unkey.kept.keys[key_id]

    async def gone(self, key_id: str) -> None:
        """Somebody deletes a key at Unkey."""
        await control(self.sandbox, "unkey", "/revoke", key_id=key_id)

    async def row(self, key_id: str) -> dict[str, Any]:
        """A key as our database has it."""
        row = await self.pool.fetchrow("select * from api_keys where unkey_key_id = $1", key_id)
        assert row is not None
        return dict(row)

    async def lets_in(self, key_id: str) -> tuple[bool, bool]:
        """Whether Unkey, and whether our row, lets a key in."""
        kept = self.sandbox.unkey.kept.keys.get(key_id)
        return kept is not None and kept.enabled, bool((await self.row(key_id))["is_active"])

    async def run(self, *arguments: str) -> Done:
        """`gateway keys …`."""
        return await gateway(self.env, "keys", *arguments)

    async def json(self, *arguments: str) -> Any:
        """What a command that goes well says with --json."""
        done = await self.run(*arguments, "--json")
        assert done.error == ""
        return json.loads(done.out)

    async def trouble(self, **fields: Any) -> None:
        """Something goes wrong at Unkey."""
        await control(self.sandbox, "unkey", **fields)

    async def well_again(self) -> None:
        """No trouble any more."""
        await control(self.sandbox, "unkey", method="DELETE")

    @asynccontextmanager
    async def rows_refuse(self, what: str = "update") -> AsyncIterator[None]:
        """While this lasts, the table of keys cannot be written: `update` or `insert`."""
        await self.pool.execute(
            f"create trigger broken before {what} on api_keys for each row execute function refuse_change()"
        )
        try:
            yield
        finally:
            await self.pool.execute("drop trigger broken on api_keys")


@asynccontextmanager
async def key_sides_at(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    """Both sides of its keys; its stand-in stops in the end."""
    # The commands read the real clock, so the stand-in is set to it as well: now, as imports may be long ago.
    async with sandbox_at(Clock(time.time())) as sandbox:
        yield KeySides(sandbox, database_url, ledger, pool)
