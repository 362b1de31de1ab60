"""`admin_events`: what was changed by hand, by whom. Only ever appended to; holds no rules."""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import asyncpg

from gateway.kit.instants import rfc3339
from gateway.stores.postgres import Table
from gateway.trail.actor import Actor

Phase = Literal["intent", "done", "failed"]
Values = Mapping[str, Any]
"""What becomes JSON: plain values, instants, amounts and UUIDs."""
_WRITE: Final = """
insert into public.admin_events (actor_kind, actor, verb, subject, subject_id, phase, intent_id, before, after)
values ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9::jsonb) returning id
"""
# The newest $4 of those since $1, by $2, about $3: a subject, a verb, both, or an id.
_LIST: Final = """
select id, created_at as at, actor_kind, actor, verb, subject, subject_id, phase, intent_id, before::text, after::text
from public.admin_events
where ($1::timestamptz is null or created_at >= $1) and ($2::text is null or actor = $2)
  and ($3::text is null or $3 in (subject, verb, subject || ' ' || verb, subject_id))
order by id desc limit $4
"""


class Deed(NamedTuple):
    """What is done."""

    verb: str
    """As the command is called: `create`, `revoke`."""
    subject: str
    """The kind of thing: `key`, `budget`."""
    subject_id: str | None
    """None where it has none yet."""
    before: Values | None = None
    after: Values | None = None


class LoggedEvent(NamedTuple):
    """One row."""

    id: int
    at: datetime
    actor_kind: str
    actor: str
    verb: str
    subject: str
    subject_id: str | None
    phase: Phase
    intent_id: int | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Trail(Table):
    """All of it over one pool, or in one transaction. Every method raises DependencyDown("postgres")."""

    async def write(self, actor: Actor, deed: Deed, *, phase: Phase = "done", intent_id: int | None = None) -> int:
        """Appends an event; its id."""
        values = (_json(deed.before), _json(deed.after))
        what = (deed.verb, deed.subject, deed.subject_id, phase, intent_id)
        return int((await self._rows(_WRITE, actor.kind, _storable(actor.name), *what, *values))[0][0])

    async def events(
        self, *, since: datetime | None, by: str | None, what: str | None, rows_max: int
    ) -> list[LoggedEvent]:
        """The newest events, the oldest of them first."""
        rows = await self._rows(_LIST, since, by, what, rows_max)
        return [_event(row) for row in reversed(rows)]


def _event(row: asyncpg.Record) -> LoggedEvent:
    return LoggedEvent(**{**dict(row), "before": _values(row["before"]), "after": _values(row["after"])})


def _json(values: Values | None) -> str | None:
    return None if values is None else json.dumps(_storable(values), default=_plain)


def _storable(value: Any) -> Any:
    """Without what PostgreSQL refuses in text: NUL, and half a surrogate pair (an option that was not UTF-8)."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {name: _storable(one) for name, one in value.items()}
    return [_storable(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(value: object) -> str:
    """Exact: an amount keeps its decimals."""
    if isinstance(value, datetime):
        return str(rfc3339(value))
    if isinstance(value, Decimal | UUID):
        return str(value)
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


def _values(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    values: dict[str, Any] = json.loads(text)
    return values
