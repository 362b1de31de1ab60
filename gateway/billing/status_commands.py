"""What `gateway billing status` shows."""

from gateway.billing.bridge import Bridge, usd
from gateway.billing.status import BillingStatus, read_status
from gateway.cli.console import Console, TextTable, cell
from gateway.config.settings import Settings
from gateway.kit.instants import Period


async def show_status(
    settings: Settings, console: Console, month: Period | None, *, by: frozenset[str], as_json: bool
) -> int:
    """The bridge, as a table or as JSON; exit status 1 where something is unexplained."""
    found = await read_status(settings, month, by_customer="customer" in by, by_plan="plan" in by)
    if as_json:
        console.print_json(found.to_json())
    else:
        _show(console, found)
    return 0 if found.is_explained else 1


def _show(console: Console, found: BillingStatus) -> None:
    of = "since the beginning" if found.span is None else f"{found.span.since:%Y-%m}"
    title = f"From cost to Stripe, {of}, as of {found.as_of:%Y-%m-%d %H:%M} (UTC)"
    console.say(title)
    console.print_table(_table(found.total, whole=True))
    for payer in found.payers:
        kind = "customer" if payer.is_customer else "no customer, user"
        console.say("", f"{kind} {payer.name} ({payer.payer_id})")
        console.print_table(_table(payer.bridge, whole=False))
    if not found.is_explained:
        console.say("Unexplained amounts: run `gateway audit`, and bill nobody before they are explained.", style="red")


def _table(bridge: Bridge, *, whole: bool) -> TextTable:
    """`whole`: with the lines that are 0, and what is read for all payers together."""
    table = TextTable()
    table.add_column("", no_wrap=True)
    table.add_column("")
    table.add_column("USD", right=True, no_wrap=True)
    for line in bridge.lines:
        if not (line.nano or line.is_sum or whole):
            continue
        if line.nano is None:
            table.add_row("", line.title, "not read")
            continue
        sign = "=" if line.is_sum else "+" if line.nano > 0 else "−" if line.nano else ""
        style = "bold red" if line.key == "unexplained" and not bridge.is_explained else "bold" if line.is_sum else ""
        amount = usd(line.nano if line.is_sum else abs(line.nano))
        table.add_row(sign, cell((line.title, style)), cell((amount, style)))
        for part in bridge.parts:
            if part.line == line.key and (part.nano or (whole and part.line != "unexplained")):
                table.add_row("", f"   {part.title}", usd(part.nano), style="dim")
    return table
