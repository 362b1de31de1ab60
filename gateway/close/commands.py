"""What `gateway close` shows."""

from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.billing.bridge import usd
from gateway.cli.console import Console, TextTable
from gateway.close.close import Closed, CloseOptions, close, reopen
from gateway.close.findings import ITEMS, CloseFinding
from gateway.close.verify import PackVerdict, verify
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.kit.instants import Period


async def close_month(
    settings: Settings, console: Console, wanted: CloseOptions, *, now: datetime, as_json: bool
) -> int:
    """The findings, and the pack where there is one; the exit status."""
    done = await close(settings, wanted, now=now)
    name = f"{wanted.month.since:%Y-%m}"
    if as_json:
        console.print_json(_to_json(done, name))
    else:
        _show(console, done, name, wanted)
    return 1 if done.refused else 0


def _show(console: Console, done: Closed, name: str, wanted: CloseOptions) -> None:
    if done.findings:
        console.print_table(_table(done, wanted))
    if done.refused:
        items = ", ".join(finding.item for finding in done.refused)
        console.say(f"{name} is not closed: {items}. Put each right, or accept it: --accept ITEM=REASON")
    elif done.pack is None:
        console.say(f"Nothing stands against closing {name}.")
    else:
        signed = f", signed by {done.signed_by}" if done.signed_by else ", not signed (close.signing_key)"
        console.say(
            f"{name} is closed, version {done.version}: {done.rows:,} rows, cost {_usd(done, 'cost')} USD, "
            f"billed {_usd(done, 'billed')} USD",
            f"pack: {done.pack}{signed}",
            f"digest: {done.digest}",
        )


def _usd(done: Closed, line: str) -> str:
    return usd(done.bridge.line(line) or 0)


def _table(done: Closed, wanted: CloseOptions) -> TextTable:
    table = TextTable(title=f"Against closing {wanted.month.since:%Y-%m}", boxed=True)
    table.add_column("item", no_wrap=True)
    table.add_column("what")
    table.add_column("number", right=True)
    table.add_column("USD", right=True)
    table.add_column("look at, or accepted because")
    for finding in done.findings:
        amount = "" if finding.nano is None else usd(finding.nano)
        reason = wanted.accepted.get(finding.item)
        note = finding.look if reason is None else f"accepted: {reason}"
        number = f"{finding.found:,}" if finding.found else ""
        table.add_row(finding.item, ITEMS[finding.item], number, amount, note)
    return table


def _to_json(done: Closed, name: str) -> dict[str, Any]:
    def plain(findings: tuple[CloseFinding, ...]) -> list[dict[str, Any]]:
        return [finding.to_json() for finding in findings]

    return {
        "month": name,
        "closed": done.pack is not None,
        "version": done.version,
        "findings": plain(done.findings),
        "refused": [finding.item for finding in done.refused],
        "bridge": done.bridge.to_json(),
        "pack": None if done.pack is None else str(done.pack),
        "rows": done.rows,
        "digest": done.digest or None,
        "signed_by": done.signed_by,
    }


async def reopen_month(settings: Settings, console: Console, month: Period, why: str) -> None:
    """Which version there is now."""
    version = await reopen(settings, month, why)
    console.say(f"{month.since:%Y-%m} has a version {version}, which is not closed yet; the version before stays.")


def verify_pack(console: Console, folder: Path, key: str | None, *, as_json: bool) -> int:
    """What was found; the exit status."""
    try:
        found = verify(folder, key)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None
    if as_json:
        console.print_json({**found._asdict(), "is_whole": found.is_whole})
    else:
        _show_verified(console, folder, found, is_key_given=key is not None)
    return 0 if found.is_whole else 1


def _show_verified(console: Console, folder: Path, found: PackVerdict, *, is_key_given: bool) -> None:
    if not found.is_whole:
        console.say(f"{folder} is NOT as it was written:", *(f"  {problem}" for problem in found.problems))
        return
    console.say(
        f"{found.period}: {found.rows:,} rows, all files, the chain, the totals and the bridge are right",
        *(f"  {name}: {number:,}" for name, number in found.figures.items()),
        f"chain head: {found.chain_head}",
        "not signed: whoever can write the files can make another pack"
        if found.signed_by is None
        else f"signed by {found.signed_by}"
        + ("" if is_key_given else " (compare this key with the one that you trust, or give it as --key)"),
    )
