"""Ledger rows with their corrections, and the tables of corrections, in PostgreSQL. Decides nothing."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from gateway.corrections.change import CorrectableRow, Target
from gateway.kit.ids import is_uuid
from gateway.stores.postgres import Table

# Which rows these ids are of; an adjustment row stands for the row that it corrects.
_BY_ID: Final = """
select id::text as ref, coalesce(adjusts, id)::text as id from public.openai_usage where id = any($1::uuid[])
"""
_BY_RESPONSE: Final = """
select response_id as ref, id::text as id from public.openai_usage
where response_id = any($1::text[]) and response_id is not null and adjusts is null
"""
_BY_REQUEST: Final = """
select request_id as ref, id::text as id from public.openai_usage where request_id = any($1::text[]) and adjusts is null
"""
_ROWS: Final = """
select u.id::text as id, u.user_id::text as user_id, o.email, u.api_key_id::text as api_key_id,
  u.meeting_id::text as meeting_id, u.endpoint, u.model, u.service_tier, u.evidence, u.started_at, u.completed_at,
  u.request_id, u.price_version, u.cost_usd is null and a.rows = 0 as unpriced, a.rows::integer as corrections,
  coalesce(u.prompt_tokens, 0) + a.prompt_tokens as prompt_tokens,
  coalesce(u.completion_tokens, 0) + a.completion_tokens as completion_tokens,
  coalesce(u.total_tokens, 0) + a.total_tokens as total_tokens,
  ((coalesce(u.cost_usd, 0) + a.cost_usd) * 1000000000)::bigint as cost_nano,
  ((coalesce(u.billed_usd, 0) + a.billed_usd) * 1000000000)::bigint as billed_nano, u.plan_version,
  u.booked_at, c.stripe_customer_id as customer
from public.openai_usage u
join public.users o on o.id = u.user_id
left join public.customers c on c.id = public.payer_of_adjustment(u.id, u.user_id, u.completed_at)
cross join lateral (
  select count(*) as rows, coalesce(sum(prompt_tokens), 0)::bigint as prompt_tokens,
    coalesce(sum(completion_tokens), 0)::bigint as completion_tokens,
    coalesce(sum(total_tokens), 0)::bigint as total_tokens,
    coalesce(sum(cost_usd), 0) as cost_usd, coalesce(sum(billed_usd), 0) as billed_usd
  from public.openai_usage where adjusts = u.id
) a
where u.id = any($1::uuid[])
"""
_ADD: Final = """
insert into public.corrections (id, made_by, approved_by, why, ticket, kind, rows, cost_nano, billed_nano)
values ($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_ADD_ROWS: Final = """
insert into public.correction_rows (correction_id, adjustment_id, adjusts)
select $1::uuid, * from unnest($2::uuid[], $3::uuid[])
"""
_PROPOSE: Final = """
insert into public.correction_proposals (id, made_by, why, ticket, kind, targets, rows, cost_nano, billed_nano)
values ($1::uuid, $2, $3, $4, $5, $6::jsonb, $7, $8, $9)
"""
_PROPOSAL: Final = """
select p.id::text, p.made_at, p.made_by, p.why, p.ticket, p.kind, p.targets::text as targets, p.rows, p.cost_nano,
  p.billed_nano, d.approved, d.decided_by
from public.correction_proposals p left join public.correction_decisions d on d.proposal_id = p.id
"""
# One proposal.
_ONE_PROPOSAL: Final = f"{_PROPOSAL} where p.id = $1::uuid"
# Those on which nobody has decided, oldest first.
_WAITING: Final = f"{_PROPOSAL} where d.proposal_id is null order by p.made_at, p.id limit $1"
_DECIDE: Final = """
insert into public.correction_decisions (proposal_id, decided_by, key_id, approved, why)
values ($1::uuid, $2, $3, $4, $5) on conflict do nothing returning 1
"""


class Reason(NamedTuple):
    """Why something is corrected."""

    why: str
    ticket: str | None
    kind: str = "adjust"
    """What makes the correction, as a command is called."""


class Sums(NamedTuple):
    """Of the differences of a correction."""

    rows: int
    cost_nano: int
    billed_nano: int


class Seen(NamedTuple):
    """What a row shall be, and what it was when the person looked who has proposed it."""

    target: Target
    corrections: int
    cost_nano: int
    billed_nano: int


class Proposal(NamedTuple):
    """A correction that another person has to agree to."""

    id: str
    made_at: datetime
    made_by: str
    reason: Reason
    seen: list[Seen]
    sums: Sums
    approved: bool | None
    """None: nobody has decided."""
    decided_by: str | None


class Corrections(Table):
    """All of it over one pool, or in one transaction. Every method raises DependencyDown("postgres")."""

    async def find_ids(self, refs: Sequence[str]) -> dict[str, list[str]]:
        """The rows (ids) that each of these names: ids of rows, response ids, request ids. A request id is looked for
        only where nothing else is called so."""
        found: dict[str, list[str]] = {ref: [] for ref in refs}
        ids = [ref.lower() for ref in refs if is_uuid(ref)]
        named = {row["ref"]: row["id"] for row in await self._rows(_BY_ID, ids)}
        for ref, rows in found.items():
            if ref.lower() in named:
                rows.append(named[ref.lower()])
        for query in (_BY_RESPONSE, _BY_REQUEST):
            rest = [ref for ref, rows in found.items() if not rows and not is_uuid(ref)]
            for row in await self._rows(query, rest) if rest else ():
                found[row["ref"]].append(row["id"])
        return found

    async def rows(self, ids: Sequence[str]) -> dict[str, CorrectableRow]:
        """These rows (UUIDs), by id, with what corrections have made of them."""
        return {row["id"]: CorrectableRow(*row.values()) for row in await self._rows(_ROWS, list(ids))}

    async def add(
        self, correction_id: str, reason: Reason, sums: Sums, *, made_by: str, approved_by: str | None
    ) -> None:
        """A correction as a whole."""
        who_why = (made_by, approved_by, reason.why, reason.ticket, reason.kind)
        await self._rows(_ADD, correction_id, *who_why, *sums)

    async def add_rows(self, correction_id: str, rows: Sequence[tuple[str, str]]) -> None:
        """Its adjustment rows, each with the row that it corrects."""
        await self._rows(_ADD_ROWS, correction_id, [row[0] for row in rows], [row[1] for row in rows])

    async def propose(
        self, proposal_id: str, reason: Reason, sums: Sums, seen: Sequence[Seen], *, made_by: str
    ) -> None:
        """What another person has to agree to."""
        why = (made_by, reason.why, reason.ticket, reason.kind)
        await self._rows(_PROPOSE, proposal_id, *why, json.dumps([_flat(each) for each in seen]), *sums)

    async def proposal(self, proposal_id: str) -> Proposal | None:
        """The one with this id (a UUID)."""
        rows = await self._rows(_ONE_PROPOSAL, proposal_id)
        return _proposal(rows[0]) if rows else None

    async def waiting(self, at_most: int) -> list[Proposal]:
        """Those on which nobody has decided, the oldest first."""
        return [_proposal(row) for row in await self._rows(_WAITING, at_most)]

    async def decide(self, proposal_id: str, *, by: str, key_id: str | None, approved: bool, why: str | None) -> bool:
        """False when somebody has decided before."""
        return bool(await self._rows(_DECIDE, proposal_id, by, key_id, approved, why))


def _flat(seen: Seen) -> list[Any]:
    return [*seen.target, *seen[1:]]


def _proposal(row: Any) -> Proposal:
    seen = [Seen(Target(*each[:4]), *each[4:]) for each in json.loads(row["targets"])]
    return Proposal(
        id=row["id"],
        made_at=row["made_at"],
        made_by=row["made_by"],
        reason=Reason(row["why"], row["ticket"], row["kind"]),
        seen=seen,
        sums=Sums(row["rows"], row["cost_nano"], row["billed_nano"]),
        approved=row["approved"],
        decided_by=row["decided_by"],
    )
