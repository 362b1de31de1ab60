"""Where our row of a key and Unkey's key disagree, and who is right. values in, values out.

Unkey decides whether a key is enabled, when it ends and what it is called; we decide that it is revoked, and neither
whose it is: usage that is billed hangs on that, so a person has to look.
"""

from typing import Literal, NamedTuple

from gateway.accounts.store import KeyRow
from gateway.keys.bounds import is_unmarked
from gateway.keys.described import DescribedKey, unix_ms
from gateway.kit.instants import rfc3339

Kind = Literal["not_linked", "not_at_unkey", "owner", "enabled", "expires_at", "name", "mark"]
"""`mark`: permissions bind a key that does not say so in its meta (docs/keys.md)."""


class Drift(NamedTuple):
    """One disagreement about one key."""

    kind: Kind
    key_id: str
    """Unkey's."""
    api_key_id: str | None
    """Ours; None where it has no row."""
    here: str | None
    at_unkey: str | None
    mendable: bool
    """Whether `--repair` may make both sides agree."""
    hint: str
    """What to do about one that is not repaired."""


def drifts(row: KeyRow | None, unkey: DescribedKey | None, *, owner_known: bool) -> list[Drift]:
    """What differs. `owner_known`: whether the externalId of a key without a row is a user here."""
    if unkey is None:
        return [] if row is None or row.revoked_at is not None else [_gone(row)]
    if row is None:
        return [_unlinked(unkey, owner_known=owner_known), *_unmarked(unkey, None)]
    found = []
    if unkey.external_id not in (None, row.user_id):
        hint = "calls count for Unkey's; revoke it, or correct its externalId at Unkey"
        found.append(_drift("owner", row, row.user_id, unkey.external_id, hint, mendable=False))
    if row.revoked_at is not None:
        if unkey.enabled:
            hint = f"`gateway keys revoke {row.unkey_key_id}` disables it at Unkey as well"
            found.append(_drift("enabled", row, "revoked", "enabled", hint, mendable=False))
        return found
    if row.is_active != unkey.enabled:
        here, there = ("enabled" if on else "disabled" for on in (row.is_active, unkey.enabled))
        found.append(_drift("enabled", row, here, there))
    if unix_ms(row.expires_at) != unix_ms(unkey.expires_at):
        found.append(_drift("expires_at", row, rfc3339(row.expires_at), rfc3339(unkey.expires_at)))
    if (row.name or None) != (unkey.name or None):
        found.append(_drift("name", row, row.name, unkey.name))
    return found + _unmarked(unkey, row.id)


def _unmarked(unkey: DescribedKey, api_key_id: str | None) -> list[Drift]:
    hint = "--repair marks it at Unkey as a bound key"
    return [Drift("mark", unkey.key_id, api_key_id, None, "bound", True, hint)] if is_unmarked(unkey) else []


def _gone(row: KeyRow) -> Drift:
    state = "enabled" if row.is_active else "disabled"
    return _drift("not_at_unkey", row, state, None, f"`gateway keys revoke {row.unkey_key_id}` marks it revoked")


def _unlinked(unkey: DescribedKey, *, owner_known: bool) -> Drift:
    if owner_known:
        hint = "it has no row of its own: --repair links it"
    elif unkey.external_id is None:
        hint = "it has no externalId: give it a user's UUID at Unkey, or delete it there"
    else:
        hint = "its externalId is no user here: it is refused (key_not_linked); correct that or delete it at Unkey"
    return Drift("not_linked", unkey.key_id, None, None, unkey.external_id, owner_known, hint)


def _drift(
    kind: Kind, row: KeyRow, here: str | None, there: str | None, hint: str = "--repair takes Unkey's", *,
    mendable: bool = True,
) -> Drift:  # fmt: skip
    return Drift(kind, row.unkey_key_id, row.id, here, there, mendable, hint)
