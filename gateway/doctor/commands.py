"""What `gateway doctor` and `gateway config show` show."""

from collections.abc import Sequence
from datetime import date
from typing import Final

from gateway.cli.console import Console, TextTable, cell
from gateway.config.settings import Settings
from gateway.doctor.checks import run_checks
from gateway.doctor.effective_settings import ShownSetting
from gateway.doctor.findings import CheckResult

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


async def doctor(settings: Settings, console: Console, *, today: date, verbose: bool, as_json: bool) -> int:
    """Every finding; the exit status: 1 when a call could not be metered."""
    findings = await run_checks(settings, today=today, verbose=verbose)
    if as_json:
        console.print_json([finding._asdict() for finding in findings])
    else:
        console.print_table(_table(findings))
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def show_settings(settings: Sequence[ShownSetting], console: Console, *, as_json: bool) -> None:
    """Every setting, its value and its source."""
    if as_json:
        console.print_json([setting._asdict() for setting in settings])
        return
    table = TextTable("setting", "value", "from", title="gateway config", boxed=True)
    for setting in settings:
        value = "not set" if setting.value is None else setting.value
        table.add_row(setting.name, value, setting.source, style="dim" if setting.source == "default" else "")
    console.print_table(table)


def _table(findings: Sequence[CheckResult]) -> TextTable:
    table = TextTable("what", "", "finding", "how to fix it", title="gateway doctor", boxed=True)
    for finding in findings:
        table.add_row(finding.what, cell((finding.level, _COLOURS[finding.level])), finding.says, finding.fix)
    return table
