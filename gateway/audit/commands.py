"""What `gateway audit` shows."""

from datetime import datetime
from typing import Final

from gateway.audit.result import AuditReport, InvariantResult
from gateway.audit.stores import AuditOptions, audit_stores, keep
from gateway.cli.console import Console, TextTable, cell, lines
from gateway.config.settings import Settings
from gateway.kit.errors import DependencyDown
from gateway.kit.instants import rfc3339
from gateway.trail.actor import operator

_COLOURS: Final = {"ok": "green", "breach": "bold red", "not checked": "yellow", "no answer": "bold yellow"}


async def audit(settings: Settings, console: Console, *, now: datetime, wanted: AuditOptions, as_json: bool) -> int:
    """Every invariant, as a table or as JSON; the exit status."""
    report = await audit_stores(settings, now=now, wanted=wanted)
    if wanted.everything:
        report = report._replace(kept=await _keep(settings, report))
    if as_json:
        console.print_json(_to_json(report))
    else:
        console.print_table(_to_table(report))
        console.say(f"{report.kept[:1].upper()}{report.kept[1:]}.")
    return report.exit_status


async def _keep(settings: Settings, report: AuditReport) -> str:
    """Keeps what later audits may go on from, where there is something; what to say of it."""
    try:
        if not await keep(settings, report, f"gateway audit --all, {operator(settings).name}"):
            return f"{report.kept}; no result was kept"
    except DependencyDown as error:  # a login that may only read is enough for an audit
        return f"{report.kept}; the result could not be kept: {error}"
    assert report.mark is not None
    return f"{report.kept}; the result was kept, and audits go on from {rfc3339(report.mark.until)}"


def _to_json(report: AuditReport) -> dict[str, object]:
    """The report as plain values; `breached` and `unanswered` say what the exit status says."""
    return {
        "from": rfc3339(report.span.since),
        "until": rfc3339(report.span.until),
        "breached": report.breached,
        "unanswered": list(report.unanswered),
        "kept": report.kept,
        "invariants": [verdict.to_json() for verdict in report.verdicts],
    }


def _to_table(report: AuditReport) -> TextTable:
    """The report for a terminal."""
    since, until = (f"{at:%Y-%m-%d %H:%M}" if at else None for at in report.span)
    title = f"gateway audit, completed from {since or 'the beginning'} until {until or 'now'} (UTC)"
    table = TextTable(title=title, boxed=True, row_lines=True)
    for name in ("invariant", "", "figures", "what to look at"):
        table.add_column(name)
    for verdict in report.verdicts:
        state = cell(("BREACH" if verdict.state == "breach" else verdict.state, _COLOURS[verdict.state]))
        table.add_row(
            f"{verdict.name} {verdict.title}", state, lines(_format_figures(verdict)), lines(_advice(verdict))
        )
    return table


def _format_figures(verdict: InvariantResult) -> list[str]:
    figures = [f"{name.replace('_', ' ')} {_format_number(value)}" for name, value in verdict.figures.items()]
    days = [f"{day['day']}: {day['estimated']} estimated, {day['cost_usd']} USD" for day in verdict.days]
    return ["; ".join(figures), *days]


def _format_number(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _advice(verdict: InvariantResult) -> list[str]:
    return [part for part in (*verdict.wrong, *verdict.examples, verdict.look) if part]
