"""Where our row of a key and Unkey's key differ, and which side is right: used by `keys show` and `keys sync`.

Unkey decides whether a key is enabled, when it ends and what it is called; we decide that it is revoked, and neither
whose it is: usage that is billed hangs on that, so a person has to look. Of a revoked key only one thing matters, that
Unkey does not let it in. Values in, values out.
"""

from typing import Any, Literal, NamedTuple

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
    fixable: bool
    """Whether `--repair` may make both sides agree."""
    hint: str
    """What to do about one that is not repaired."""
    means: str
    """What holds while they disagree: a sentence for people."""

    def to_json(self) -> dict[str, Any]:
        """Without what is for people alone."""
        fields = self._asdict()
        del fields["fixable"], fields["means"]
        return fields


def find_drift(row: KeyRow | None, unkey: DescribedKey | None, *, owner_known: bool) -> list[Drift]:
    """What differs. `owner_known`: whether the externalId of a key without a row is a user here."""
    if unkey is None:
        return [] if row is None or row.revoked_at is not None else [_gone(row)]
    if row is None:
        return [_unlinked(unkey, owner_known=owner_known), *_unmarked(unkey, None)]
    if row.revoked_at is not None:
        return [_not_disabled(row)] if unkey.enabled else []
    return [*_owner(row, unkey), *_fields(row, unkey), *_unmarked(unkey, row.id)]


def _gone(row: KeyRow) -> Drift:
    return Drift(
        kind="not_at_unkey",
        key_id=row.unkey_key_id,
        api_key_id=row.id,
        here=_state(enabled=row.is_active),
        at_unkey=None,
        fixable=True,
        hint=f"`gateway keys revoke {row.unkey_key_id}` marks it revoked",
        means="Unkey does not know this key (or UNKEY_ROOT_KEY is of another workspace): it is refused",
    )


def _unlinked(unkey: DescribedKey, *, owner_known: bool) -> Drift:
    if owner_known:
        hint = "it has no row of its own: `gateway keys sync --repair` links it"
    elif unkey.external_id is None:
        hint = "it has no externalId: give it a user's UUID at Unkey, or delete it there"
    else:
        hint = "its externalId is not a user here: it is refused (key_not_linked); correct that or delete it at Unkey"
    means = "it has no row here"
    return Drift("not_linked", unkey.key_id, None, None, unkey.external_id, owner_known, hint, means)


def _not_disabled(row: KeyRow) -> Drift:
    return Drift(
        kind="enabled",
        key_id=row.unkey_key_id,
        api_key_id=row.id,
        here="revoked",
        at_unkey="enabled",
        fixable=False,
        hint=f"`gateway keys revoke {row.unkey_key_id}` disables it at Unkey as well",
        means="revoked here, enabled at Unkey: the gateway refuses it, others who ask Unkey do not",
    )


def _owner(row: KeyRow, unkey: DescribedKey) -> list[Drift]:
    """The row decides whose calls they are; limits that keys share at Unkey are those of its owner there."""
    if unkey.external_id == row.user_id:
        return []
    if unkey.external_id is None:
        means = "Unkey has no externalId for it"
        hint = f"calls count for our row's user, without limits that their keys share: give it {row.user_id} at Unkey"
    else:
        means = f"belongs to {row.user_id} here, to externalId {unkey.external_id} at Unkey"
        hint = "calls count for our row's user, under the other's shared limits: correct it at Unkey, or revoke it"
    return [Drift("owner", row.unkey_key_id, row.id, row.user_id, unkey.external_id, False, hint, means)]


def _fields(row: KeyRow, unkey: DescribedKey) -> list[Drift]:
    """What Unkey decides."""
    found = []
    if row.is_active != unkey.enabled:
        here, there = _state(enabled=row.is_active), _state(enabled=unkey.enabled)
        means = "the gateway refuses it, others who ask Unkey do not" if unkey.enabled else "it is refused"
        found.append(_of_unkey("enabled", row, here, there, f"{here} here, {there} at Unkey: {means}"))
    if unix_ms(row.expires_at) != unix_ms(unkey.expires_at):
        ends = rfc3339(row.expires_at), rfc3339(unkey.expires_at)
        told = [f"expires {at}" if at else "never expires" for at in ends]
        means = f"{told[0]} here, {told[1]} at Unkey: the earlier one holds"
        found.append(_of_unkey("expires_at", row, *ends, means))
    if (row.name or None) != (unkey.name or None):
        means = f"is named {row.name!r} here, {unkey.name!r} at Unkey"
        found.append(_of_unkey("name", row, row.name, unkey.name, means))
    return found


def _of_unkey(kind: Kind, row: KeyRow, here: str | None, there: str | None, means: str) -> Drift:
    return Drift(kind, row.unkey_key_id, row.id, here, there, True, "`gateway keys sync --repair` takes Unkey's", means)


def _unmarked(unkey: DescribedKey, api_key_id: str | None) -> list[Drift]:
    if not is_unmarked(unkey):
        return []
    means = "permissions bind it, and it is not marked so: if Unkey left them out it could call everything"
    hint = "`gateway keys sync --repair` marks it at Unkey as a bound key"
    return [Drift("mark", unkey.key_id, api_key_id, None, "bound", True, hint, means)]


def _state(*, enabled: bool) -> str:
    return "enabled" if enabled else "disabled"
