"""Corrects ledger rows: looks what a correction would do, and books it, alone or after another person has agreed.

One transaction has the adjustment rows, every sum beside the ledger, the correction and the record of who did it: all
of it commits or nothing. The rows go by the statement that writes every ledger row.
"""

import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from gateway.billing.decisions import HeldEvent
from gateway.config.settings import Settings
from gateway.corrections.change import CorrectableRow, RowChange, WantedRow, adjustment_row, plan_change
from gateway.corrections.effects import Effects, find_effects
from gateway.corrections.store import Corrections, Proposal, Reason, Seen, Sums
from gateway.kit.errors import DependencyDown, OptionError
from gateway.kit.ids import uuid7
from gateway.ledger.correct import lock_corrections
from gateway.ledger.opening import build_ledger
from gateway.ledger.rows import LedgerEntry, NotARow
from gateway.stores.one_connection import database
from gateway.stores.postgres import Connections
from gateway.trail.record import TrailTransaction, recording
from gateway.trail.store import Deed
from gateway.usage.plan_store import PlanStore
from gateway.usage.plans import Terms, markup_terms
from pricing import nano_text

WHY: Final = "the ledger is in PostgreSQL"
NAMED_MAX: Final = 20
"""Rows that an event or an error names."""


class Planned(NamedTuple):
    """What a correction would do."""

    changes: list[RowChange]
    unchanged: list[str]
    """Ids of rows that are so already."""
    sums: Sums
    effects: Effects


class Booked(NamedTuple):
    """What became of it."""

    planned: Planned
    id: str | None
    """None: there was nothing to correct."""
    is_proposal: bool = False
    """Whether another person has to agree first."""
    cancelled: Sequence[HeldEvent] = ()
    """Meter events that are cancelled at Stripe, whose window is sent anew."""


async def preview(settings: Settings, wanted: Sequence[WantedRow], *, now: datetime) -> Planned:
    """What a correction would do; changes nothing. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, WHY) as pool:
        return await plan_correction(settings, pool, wanted, now)


async def correct(
    settings: Settings,
    wanted: Sequence[WantedRow],
    reason: Reason,
    *,
    now: datetime,
    by: str | None = None,
    total_nano: int | None = None,
) -> Booked:
    """Corrects all of these rows or none; with `billing.four_eyes` it is only proposed. `total_nano` is what the
    billed differences must add up to. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, WHY) as pool, recording(settings, pool, by=by) as record:
        await lock_corrections(record.connections)
        planned = await plan_correction(settings, record.connections, wanted, now)
        if total_nano is not None and total_nano != planned.sums.billed_nano:
            found, given = nano_text(planned.sums.billed_nano), nano_text(total_nano)
            raise OptionError(
                f"--total: the differences in what is billed add up to {found} USD, not to {given}; nothing was changed"
            )
        if not planned.changes:
            return Booked(planned, None)
        new_id = new_correction_id(now)
        if settings.billing.four_eyes:
            await _propose(record, new_id, planned, reason)
            return Booked(planned, new_id, is_proposal=True)
        await book_correction(
            settings, record, new_id, planned, reason, made_by=record.actor.name, approved_by=None, at=now
        )
        return Booked(planned, new_id)


async def approve(settings: Settings, proposal_id: str, *, key_id: str | None, by: str | None, now: datetime) -> Booked:
    """Books what another person has proposed, if the rows are still as that person saw them. `key_id` is the key that
    has shown the right to approve. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, WHY) as pool, recording(settings, pool, by=by) as record:
        await lock_corrections(record.connections)
        corrections = Corrections(record.connections)
        proposal = await _undecided(corrections, proposal_id)
        if _is_same_name(proposal.made_by, record.actor.name):
            raise OptionError(f"ID: {proposal.made_by} has proposed it, so somebody else must approve it")
        planned = await _plan_seen(settings, record.connections, proposal, now)
        await corrections.decide(proposal.id, by=record.actor.name, key_id=key_id, approved=True, why=None)
        made_by, approved_by = proposal.made_by, record.actor.name
        await book_correction(
            settings, record, proposal.id, planned, proposal.reason, made_by=made_by, approved_by=approved_by, at=now
        )
        return Booked(planned, proposal.id)


async def reject(settings: Settings, proposal_id: str, *, why: str, by: str | None) -> Proposal:
    """Closes a proposal; nothing is booked. Whoever made it may take it back so. Raises the same."""
    async with database(settings, WHY) as pool, recording(settings, pool, by=by) as record:
        await lock_corrections(record.connections)
        corrections = Corrections(record.connections)
        proposal = await _undecided(corrections, proposal_id)
        await corrections.decide(proposal.id, by=record.actor.name, key_id=None, approved=False, why=why)
        before = {"proposed_by": proposal.made_by, "why": proposal.reason.why}
        await record.write(Deed("reject", "correction", proposal.id, before, {"why": why}))
        return proposal


def new_correction_id(now: datetime) -> str:
    """A UUIDv7."""
    return uuid7(int(now.timestamp() * 1000), secrets.randbits(80))


async def plan_correction(
    settings: Settings, connections: Connections, wanted: Sequence[WantedRow], at: datetime
) -> Planned:
    """What a correction does that counts at that instant. Raises OptionError, DependencyDown."""
    corrections = Corrections(connections)
    refs = [each.ref for each in wanted]
    ids = _one_each(refs, await corrections.find_ids(refs))
    rows = await corrections.rows(list(ids.values()))
    terms = await _terms_of(settings, connections, rows.values())
    changes = [plan_change(rows[ids[each.ref]], each, terms[rows[ids[each.ref]].plan_version]) for each in wanted]
    return await _planned(settings, connections, changes, at)


async def _terms_of(
    settings: Settings, connections: Connections, rows: Iterable[CorrectableRow]
) -> dict[str | None, Terms]:
    """By plan_version: what rows were billed by; today's setting where they do not say."""
    plans, setting = PlanStore(connections), markup_terms(settings.billing.markup)
    return {name: await plans.terms(name) or setting for name in {row.plan_version for row in rows}}


async def _plan_seen(settings: Settings, connections: Connections, proposal: Proposal, now: datetime) -> Planned:
    rows = await Corrections(connections).rows([seen.target.row_id for seen in proposal.seen])
    terms = await _terms_of(settings, connections, rows.values())
    changes = []
    for seen in proposal.seen:
        row = rows[seen.target.row_id]
        if (row.corrections, row.cost_nano, row.billed_nano) != seen[1:]:
            raise OptionError(
                f"ID: row {row.id} was corrected since this was proposed; reject it, and propose it again"
            )
        changes.append(RowChange(row, seen.target, terms[row.plan_version].name))
    return await _planned(settings, connections, changes, now)


async def _planned(
    settings: Settings, connections: Connections, changes: Sequence[RowChange], now: datetime
) -> Planned:
    needed = [change for change in changes if change.is_needed]
    sums = Sums(
        len(needed),
        sum(change.cost_nano for change in needed),
        sum(change.billed_nano for change in needed),
    )
    effects = await find_effects(connections, needed, settings.billing, now)
    return Planned(needed, [each.row.id for each in changes if not each.is_needed], sums, effects)


def _one_each(refs: Sequence[str], found: dict[str, list[str]]) -> dict[str, str]:
    """The row of each reference. Raises OptionError naming those that have none, several, or one that was named."""
    missing = [ref for ref, rows in found.items() if not rows]
    if missing:
        more = f" and {len(missing) - NAMED_MAX:,} more" if len(missing) > NAMED_MAX else ""
        raise OptionError(f"ROW: the ledger has no row for {', '.join(missing[:NAMED_MAX])}{more}")
    seen: dict[str, str] = {}
    for ref in refs:
        rows = found[ref]
        if len(rows) > 1:
            raise OptionError(f"ROW: {ref} is of {len(rows)} rows; give the id of one: {', '.join(rows[:NAMED_MAX])}")
        if rows[0] in seen:
            raise OptionError(f"ROW: {seen[rows[0]]} and {ref} name the same row, {rows[0]}")
        seen[rows[0]] = ref
    return {ref: rows[0] for ref, rows in found.items()}


async def book_correction(
    settings: Settings,
    record: TrailTransaction,
    correction_id: str,
    planned: Planned,
    reason: Reason,
    *,
    made_by: str,
    approved_by: str | None,
    at: datetime,
) -> None:
    """Writes a correction and its adjustment rows, which count `at` an instant. Raises OptionError, DependencyDown."""
    corrections = Corrections(record.connections)
    events = [adjustment_row(change, correction_id, reason.kind, at) for change in planned.changes]
    ledger = build_ledger(settings, record.connections)
    try:
        inserted = await ledger.insert_all([LedgerEntry.of(event) for event in events])
    except NotARow as error:
        raise OptionError(f"the ledger refuses a row of this correction: {error.kind}; nothing was changed") from error
    if inserted != len(events):
        raise DependencyDown("postgres", "the ledger has rows of this correction already; nothing was changed")
    await corrections.add(correction_id, reason, planned.sums, made_by=made_by, approved_by=approved_by)
    await corrections.add_rows(correction_id, [(event.id, str(event.adjusts)) for event in events])
    verb = "book" if approved_by is None else "approve"
    after = _told(planned, reason) | ({} if approved_by is None else {"proposed_by": made_by})
    await record.write(Deed(verb, "correction", correction_id, _before(planned), after))


async def _propose(record: TrailTransaction, proposal_id: str, planned: Planned, reason: Reason) -> None:
    seen = [
        Seen(change.target, change.row.corrections, change.row.cost_nano, change.row.billed_nano)
        for change in planned.changes
    ]
    corrections = Corrections(record.connections)
    await corrections.propose(proposal_id, reason, planned.sums, seen, made_by=record.actor.name)
    await record.write(Deed("propose", "correction", proposal_id, _before(planned), _told(planned, reason)))


async def _undecided(corrections: Corrections, proposal_id: str) -> Proposal:
    proposal = await corrections.proposal(proposal_id)
    if proposal is None:
        raise OptionError(f"ID: no correction {proposal_id} waits; `gateway corrections waiting` lists them")
    if proposal.approved is not None:
        how = "approved" if proposal.approved else "rejected"
        raise OptionError(f"ID: {proposal.decided_by} has {how} it already")
    return proposal


def _is_same_name(one: str, other: str) -> bool:
    """Whether two names are of one person, however they are written."""
    plain = [" ".join(unicodedata.normalize("NFKC", name).casefold().split()) for name in (one, other)]
    return plain[0] == plain[1]


def _before(planned: Planned) -> dict[str, object]:
    return {
        "cost_usd": nano_text(sum(change.row.cost_nano for change in planned.changes)),
        "billed_usd": nano_text(sum(change.row.billed_nano for change in planned.changes)),
    }


def _told(planned: Planned, reason: Reason) -> dict[str, object]:
    """What the record of changes says of it."""
    return {
        "cost_usd": nano_text(sum(change.target.cost_nano for change in planned.changes)),
        "billed_usd": nano_text(sum(change.target.billed_nano for change in planned.changes)),
        "rows": planned.sums.rows,
        "first_rows": [change.row.id for change in planned.changes[:NAMED_MAX]],
        "kind": reason.kind,
        "why": reason.why,
        "ticket": reason.ticket,
    }
