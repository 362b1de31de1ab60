"""Compares every key of the Unkey API with our rows, and with `--repair` makes ours agree.

At Unkey it makes and deletes no key, and changes nothing but the mark of a bound one. Lists are only a first look,
because keys change while pages are turned: what seems to differ is read again, the row first and Unkey second, and
written only if the row is still as it was read. So it may run at any time, beside every other command and itself.
"""

from contextlib import AsyncExitStack
from typing import Any, Final, Literal, NamedTuple

from gateway.accounts.announce import Announced, announce
from gateway.accounts.store import Accounts, KeyRow
from gateway.config.settings import Settings
from gateway.keys.at_unkey import key_pages, meaning, unkey
from gateway.keys.bounds import BOUND
from gateway.keys.described import DescribedKey
from gateway.keys.drift import Drift, find_drift
from gateway.keys.unkey_admin import KeyAdmin, KeyChange
from gateway.kit.errors import ConfigError, Expected, OptionError
from gateway.kit.ids import is_uuid
from gateway.stores.one_connection import database
from gateway.stores.postgres import Pool
from gateway.trail.record import intending, recording
from gateway.trail.store import Deed

PAGE: Final = 100
TRIES: Final = 3
"""How often a key is looked at that changes while it is looked at."""
_HEARD: Final = ("not_linked", "not_at_unkey", "enabled", "expires_at")
"""Repairs that decide whether a key is let in."""
Outcome = Literal["differs", "repaired"]


class Finding(NamedTuple):
    """One disagreement and what became of it."""

    drift: Drift
    outcome: Outcome


class Synced(NamedTuple):
    """What a run found."""

    at_unkey: int
    """Keys of the API that were compared."""
    only_here: int
    """Rows that are not revoked and not in the list of the API."""
    findings: list[Finding]
    announced: Announced | None
    """Who has heard of what was repaired; None where nothing was."""

    @property
    def left(self) -> int:
        """Disagreements that are still there."""
        return sum(one.outcome == "differs" for one in self.findings)


async def sync(settings: Settings, *, repair: bool, revoke_at_most: int) -> Synced:
    """Compares, and repairs if asked.

    With `repair`, rows whose key Unkey does not know are marked revoked unless they are more than `revoke_at_most`:
    then the root key is probably of another workspace. Raises OptionError, ConfigError naming the setting,
    DependencyDown, which say how far it came.
    """
    if revoke_at_most < 0:
        raise OptionError(f"--revoke-at-most: 0 or more, not {revoke_at_most}")
    if settings.unkey_api_id is None:
        raise ConfigError("UNKEY_API_ID is not set: the keys of that API at Unkey are compared")
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(unkey(settings, "every key is asked about at Unkey"))
        pool = await stack.enter_async_context(database(settings, "keys are compared with those in PostgreSQL"))
        run = _Run(settings, admin, pool, repair=repair)
        try:
            await run.compare(settings.unkey_api_id)
            await run.revoke(revoke_at_most)
        except Expected:
            await _announce(settings, run.findings)
            repaired = sum(one.outcome == "repaired" for one in run.findings)
            with meaning(f"{len(run.seen)} keys were compared until then, {repaired} repaired; run it again"):
                raise
    return Synced(len(run.seen), run.only_here, run.findings, await _announce(settings, run.findings))


async def _announce(settings: Settings, findings: list[Finding]) -> Announced | None:
    keys = {one.drift.key_id for one in findings if one.outcome == "repaired" and one.drift.kind in _HEARD}
    return await announce(settings, keys=sorted(keys)) if keys else None


class _Run:
    """One comparison."""

    def __init__(self, settings: Settings, admin: KeyAdmin, pool: Pool, *, repair: bool) -> None:
        self._settings: Final = settings
        self._admin: Final = admin
        self._pool: Final = pool
        self._accounts: Final = Accounts(pool)
        self._repair: Final = repair
        self.seen: Final[set[str]] = set()
        """Unkey's ids of the keys in its list."""
        self.only_here = 0
        self.findings: Final[list[Finding]] = []
        self._gone: Final[list[tuple[KeyRow, Drift]]] = []

    async def compare(self, api_id: str) -> None:
        """Unkey's list against our rows, then the rows that it does not have."""
        async for page in key_pages(self._admin, api_id, page=PAGE):
            rows = await self._accounts.keys_of([key.key_id for key in page])
            for key in page:
                if key.key_id not in self.seen and find_drift(rows.get(key.key_id), key, owner_known=True):
                    await self._settle(key.key_id)
                self.seen.add(key.key_id)
        after: str | None = None
        while found := await self._accounts.unrevoked_keys(after, PAGE):
            after = found[-1].id
            for row in found:
                if row.unkey_key_id not in self.seen:
                    self.only_here += 1
                    await self._settle(row.unkey_key_id)  # perhaps of another API, or made just now

    async def revoke(self, at_most: int) -> None:
        """Marks the rows revoked whose keys are gone, if it is to repair and they are not suspiciously many."""
        many = len(self._gone) > at_most
        for row, drift in self._gone:
            if self._repair and not many:
                async with recording(self._settings, self._pool) as record:
                    revoked_at = await Accounts(record.connections).revoke_key(row.id)
                    after = {"is_active": False, "revoked_at": revoked_at}
                    await record.write(_deed(row.unkey_key_id, _look_of(row), after))
                self.findings.append(Finding(drift, "repaired"))
                continue
            hint = (
                f"{len(self._gone)} such rows, more than --revoke-at-most {at_most}: are UNKEY_ROOT_KEY and "
                "UNKEY_API_ID those of this database's workspace?"
            )
            self.findings.append(Finding(drift._replace(hint=hint) if self._repair else drift, "differs"))

    async def _settle(self, key_id: str) -> None:
        """Looks again at a key that seems to differ, and repairs what may be."""
        for _ in range(TRIES):
            row = (await self._accounts.keys_of([key_id])).get(key_id)
            key = await self._admin.describe_key(key_id)
            owner = key.external_id if key is not None and row is None else None
            known = owner is not None and is_uuid(owner) and await self._accounts.find(owner) is not None
            found = find_drift(row, key, owner_known=known)
            if row is not None and key is None:
                self._gone.extend((row, drift) for drift in found)
                return
            may_repair = self._repair and key is not None and any(one.fixable for one in found)
            if not may_repair or (key is not None and await self._fix(row, key, found)):
                self.findings.extend(
                    Finding(one, "repaired" if may_repair and one.fixable else "differs") for one in found
                )
                return
        hint = "it keeps changing while it is compared: run it again"
        self.findings.extend(Finding(one._replace(hint=hint), "differs") for one in found)

    async def _fix(self, row: KeyRow | None, key: DescribedKey, found: list[Drift]) -> bool:
        """Marks a bound key, and makes our side agree; False when either has changed since it was read."""
        kinds = {one.kind for one in found if one.fixable}
        if "mark" in kinds:
            marking = _deed(key.key_id, {BOUND: False}, {BOUND: True})
            with meaning(f"{key.key_id} could not be marked as a bound key", right="api.*.update_key"):
                async with intending(self._settings, marking) as intent:
                    if not await self._admin.update_key(key.key_id, KeyChange(meta=key.meta | {BOUND: True})):
                        intent.learn({BOUND: False, "known_to_unkey": False})
                        return False
        if kinds == {"mark"}:
            return True
        fields: dict[str, Any] = {"name": key.name, "is_active": key.enabled, "expires_at": key.expires_at}
        async with recording(self._settings, self._pool) as record:
            accounts = Accounts(record.connections)
            if row is None:
                fixed = await accounts.adopt_key(str(key.external_id), key.key_id, **fields)
            else:
                fixed = await accounts.agree(row, **fields)
            if fixed:
                await record.write(_deed(key.key_id, None if row is None else _look_of(row), fields))
        return fixed


def _deed(key_id: str, before: dict[str, Any] | None, after: dict[str, Any]) -> Deed:
    return Deed("sync", "key", key_id, before, after)


def _look_of(row: KeyRow) -> dict[str, Any]:
    """What a repair may change of our side."""
    return {"name": row.name, "is_active": row.is_active, "expires_at": row.expires_at}
