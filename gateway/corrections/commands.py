"""What `gateway adjust` and `gateway corrections` show."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gateway.billing.decisions import HeldEvent
from gateway.billing.windows import NANO_PER_UNIT
from gateway.cli.console import Console, TextTable
from gateway.cli.csv_text import text_field
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.corrections import booking, listing
from gateway.corrections.booking import Booked, Planned
from gateway.corrections.change import RowChange, WantedRow
from gateway.corrections.effects import BudgetEffect, InvoiceEffect
from gateway.corrections.listing import CorrectionLine
from gateway.corrections.reissuing import correct_and_reissue
from gateway.corrections.store import Proposal, Reason, Sums
from gateway.kit.instants import rfc3339
from gateway.reports.output import Form
from pricing import nano_text

SHOWN_MAX: Final = 50
"""Rows that a preview shows one by one."""
_COLUMNS: Final = (
    "id", "made_at", "made_by", "approved_by", "why", "ticket", "kind", "month_corrected", "month_booked", "rows",
    "cost_usd", "billed_usd",
)  # fmt: skip


async def adjust(
    settings: Settings,
    console: Console,
    wanted: Sequence[WantedRow],
    reason: Reason,
    *,
    now: datetime,
    yes: bool,
    by: str | None,
    total_nano: int | None,
    cancel: bool = False,
    as_json: bool,
) -> None:
    """What a correction would do, or has done."""
    if cancel:
        done = await correct_and_reissue(settings, wanted[0], reason, now=now, is_sure=yes, by=by)
    elif yes:
        done = await booking.correct(settings, wanted, reason, now=now, by=by, total_nano=total_nano)
    else:
        done = Booked(await booking.preview(settings, wanted, now=now), None)
    if as_json:
        console.print_json(_plain(done, dry_run=not yes))
        return
    _show_plan(console, done.planned)
    for event in done.cancelled:
        console.say(_describe_cancelled(event, yes=yes))
    console.say(_outcome(done, yes=yes, many=len(wanted) > 1))


async def list_corrections(
    settings: Settings, console: Console, *, since: datetime | None, until: datetime | None, form: Form
) -> None:
    """Corrections that were made in a period."""
    found = await listing.list_corrections(settings, since, until)
    if form == "json":
        console.print_json([line.to_json() for line in found])
    elif form == "csv":
        console.write_lines(corrections_csv(found))
    elif found:
        console.print_table(_table(found))
    else:
        console.say("No corrections.")


async def list_waiting(settings: Settings, console: Console, *, as_json: bool) -> None:
    """Corrections that another person has to agree to."""
    found = await listing.list_waiting(settings)
    if as_json:
        console.print_json([_proposal(each) for each in found])
    elif found:
        for each in found:
            console.say(_describe_proposal(each))
    else:
        console.say("No correction waits for approval.")


async def approve(
    settings: Settings, console: Console, *, proposal_id: str, key_id: str, by: str | None, now: datetime, as_json: bool
) -> None:
    """That a correction is booked."""
    done = await booking.approve(settings, proposal_id, key_id=key_id, by=by, now=now)
    if as_json:
        console.print_json(_plain(done, dry_run=False))
        return
    _show_plan(console, done.planned)
    console.say(_outcome(done, yes=True, many=False))


async def reject(
    settings: Settings, console: Console, *, proposal_id: str, why: str, by: str | None, as_json: bool
) -> None:
    """That a correction will not be booked."""
    done = await booking.reject(settings, proposal_id, why=why, by=by)
    console.answer({"id": done.id, "approved": False}, f"Rejected: {_describe_proposal(done)}", as_json=as_json)


def corrections_csv(found: Sequence[CorrectionLine]) -> str:
    """RFC 4180: a header, then a line per correction and pair of months."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for line in found:
        plain = line.to_json()
        # Text of people is defused; amounts, which may begin with a minus, are numbers.
        writer.writerow(
            plain[name] if name in ("rows", "cost_usd", "billed_usd") else text_field(plain[name]) for name in _COLUMNS
        )
    return out.getvalue()


def _show_plan(console: Console, planned: Planned) -> None:
    for change in planned.changes[:SHOWN_MAX]:
        console.say(*_describe_change(change))
    if len(planned.changes) > SHOWN_MAX:
        console.say(f"… and {len(planned.changes) - SHOWN_MAX:,} more rows (--json has all of them).")
    if planned.unchanged:
        console.say(f"{len(planned.unchanged):,} row(s) are so already: {', '.join(planned.unchanged[:SHOWN_MAX])}")
    if not planned.changes:
        return
    for corrected, booked, rows in planned.effects.months:
        console.say(f"Month: {rows:,} row(s) of {corrected}, booked in {booked}.")
    for invoice in planned.effects.invoices:
        console.say(_describe_invoice(invoice))
    for budget in planned.effects.budgets:
        console.say(_describe_budget(budget, planned.effects.at))
    sums = planned.sums
    console.say(f"Control total: {_describe_sums(sums)}.")


def _describe_change(change: RowChange) -> list[str]:
    row, target = change.row, change.target
    before = "not known" if row.unpriced else nano_text(row.cost_nano)
    billed = "not known" if row.unpriced else nano_text(row.billed_nano)
    corrected = f", corrected {row.corrections} time(s) before" if row.corrections else ""
    return [
        f"Row {row.id}: {row.model}, {row.endpoint}, {row.email}, {rfc3339(row.completed_at)}, "
        f"{row.evidence}{corrected}",
        f"  cost    {before} → {nano_text(target.cost_nano)} ({_signed(change.cost_nano)}) USD",
        f"  billed  {billed} → {nano_text(target.billed_nano)} ({_signed(change.billed_nano)}) USD",
    ]


def _describe_invoice(effect: InvoiceEffect) -> str:
    window = f"window {effect.window_start:%Y-%m-%d %H:%M}–{effect.window_end:%H:%M} UTC"
    amount = f"{_signed(effect.billed_nano)} USD"
    if effect.customer is None:
        return f"Invoice: {amount} accrue for {effect.email}: no Stripe customer paid when this was used ({window})."
    return (
        f"Invoice: {amount} for {effect.customer} ({effect.email}), {window}, reported after {effect.frozen_at:%H:%M}."
    )


def _describe_budget(effect: BudgetEffect, at: datetime) -> str:
    if effect.budget_id is None:
        return f"Prepaid credit: {_signed(-effect.nano)} USD."
    when = f"{at.astimezone(UTC):%Y-%m-%d}"
    return f"Budget: {_signed(effect.nano)} USD spent of {effect.name} ({effect.budget_id}), in its period of {when}."


def _describe_cancelled(event: HeldEvent, *, yes: bool) -> str:
    how = "is cancelled" if yes else "would be cancelled"
    usd = nano_text(event.value * NANO_PER_UNIT)
    return f"Stripe: {event.identifier} ({usd} USD) {how}, and its whole window sent as a new event within minutes."


def _outcome(done: Booked, *, yes: bool, many: bool) -> str:
    if not done.planned.changes:
        return "Nothing to correct."
    if not yes:
        total = f" --total={nano_text(done.planned.sums.billed_nano)}" if many else ""
        return f"Nothing was changed: this was a preview. Add --yes{total} to book it."
    if done.is_proposal:
        return f"Proposed as {done.id}: `gateway corrections approve {done.id}` by somebody else books it."
    return f"Booked as correction {done.id}."


def _describe_sums(sums: Sums) -> str:
    return f"{sums.rows:,} row(s), cost {_signed(sums.cost_nano)} USD, billed {_signed(sums.billed_nano)} USD"


def _signed(nano: int) -> str:
    return nano_text(nano) if nano < 0 else f"+{nano_text(nano)}"


def _plain(done: Booked, *, dry_run: bool) -> dict[str, Any]:
    planned = done.planned
    return {
        "id": done.id,
        "dry_run": dry_run,
        "proposed": done.is_proposal,
        "rows": planned.sums.rows,
        "cost_usd": nano_text(planned.sums.cost_nano),
        "billed_usd": nano_text(planned.sums.billed_nano),
        "changes": [_plain_change(change) for change in planned.changes],
        "unchanged": planned.unchanged,
        "cancelled": [
            {"identifier": event.identifier, "usd": nano_text(event.value * NANO_PER_UNIT)} for event in done.cancelled
        ],
        "months": [
            {"corrected": corrected, "booked": booked, "rows": rows}
            for corrected, booked, rows in planned.effects.months
        ],
        "invoices": [
            {
                "user_id": each.user_id,
                "stripe_customer_id": each.customer,
                "window_start": rfc3339(each.window_start),
                "window_end": rfc3339(each.window_end),
                "reported_after": rfc3339(each.frozen_at),
                "billed_usd": nano_text(each.billed_nano),
            }
            for each in planned.effects.invoices
        ],
        "budgets": [
            {"user_id": each.user_id, "budget_id": each.budget_id, "name": each.name, "usd": nano_text(each.nano)}
            for each in planned.effects.budgets
        ],
    }


def _plain_change(change: RowChange) -> dict[str, Any]:
    row = change.row
    return {
        "row": row.id,
        "user_id": row.user_id,
        "model": row.model,
        "evidence": row.evidence,
        "completed_at": rfc3339(row.completed_at),
        "corrections_before": row.corrections,
        "cost_usd_before": None if row.unpriced else nano_text(row.cost_nano),
        "cost_usd_after": nano_text(change.target.cost_nano),
        "cost_usd_difference": nano_text(change.cost_nano),
        "billed_usd_before": None if row.unpriced else nano_text(row.billed_nano),
        "billed_usd_after": nano_text(change.target.billed_nano),
        "billed_usd_difference": nano_text(change.billed_nano),
    }


def _proposal(proposal: Proposal) -> dict[str, Any]:
    return {
        "id": proposal.id,
        "made_at": rfc3339(proposal.made_at),
        "made_by": proposal.made_by,
        "why": proposal.reason.why,
        "ticket": proposal.reason.ticket,
        "rows": proposal.sums.rows,
        "cost_usd": nano_text(proposal.sums.cost_nano),
        "billed_usd": nano_text(proposal.sums.billed_nano),
        "row_ids": [each.target.row_id for each in proposal.seen],
    }


def _describe_proposal(proposal: Proposal) -> str:
    reason = proposal.reason
    ticket = f" ({reason.ticket})" if reason.ticket else ""
    who = f"by {proposal.made_by}, {minute(proposal.made_at)}"
    return f"{proposal.id}: {_describe_sums(proposal.sums)}, {who}: {reason.why}{ticket}"


def _table(found: Sequence[CorrectionLine]) -> TextTable:
    table = TextTable()
    for name in ("made (UTC)", "by", "why", "months", "rows", "cost USD", "billed USD", "id"):
        right = name in ("rows", "cost USD", "billed USD")
        table.add_column(name, right=right, no_wrap=right)
    for line in found:
        by = line.made_by if line.approved_by is None else f"{line.made_by}, approved by {line.approved_by}"
        ticket = f" ({line.ticket})" if line.ticket else ""
        table.add_row(
            minute(line.made_at),
            by,
            f"{line.why}{ticket}",
            f"{line.month_corrected} → {line.month_booked}",
            f"{line.rows:,}",
            nano_text(line.cost_nano),
            nano_text(line.billed_nano),
            line.id or line.kind,
        )
    return table
