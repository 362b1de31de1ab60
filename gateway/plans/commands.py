"""What `gateway plans` shows."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.kit.instants import rfc3339
from gateway.plans import admin
from gateway.plans.admin import Explanation, PlanChange
from gateway.plans.options import PlanOptions
from gateway.plans.preview import UserChange
from gateway.plans.store import PlanRow
from gateway.usage.plans import Kind, digest_of
from pricing import nano_text


async def set_plan(settings: Settings, console: Console, options: PlanOptions, *, apply: bool, as_json: bool) -> None:
    """The version that was made, or what it would do."""
    _show_change(console, await admin.set_plan(settings, options, apply=apply), "starts", as_json=as_json)


async def end_plan(
    settings: Settings, console: Console, name: str, at: datetime | None, *, apply: bool, as_json: bool
) -> None:
    """The version that was ended, or what that would do."""
    _show_change(console, await admin.end_plan(settings, name, at, apply=apply), "ends", as_json=as_json)


async def list_plans(settings: Settings, console: Console, *, now: datetime, every: bool, as_json: bool) -> None:
    """A line per version."""
    rows = await admin.list_plans(settings, now=now, every=every)
    if as_json:
        console.print_json([_plain(row) for row in rows])
    elif rows:
        table = TextTable("plan", "for", "charges", "from (UTC)", "until (UTC)")
        for row in rows:
            plan = row.plan
            when = (minute(plan.valid_from), minute(plan.valid_to))
            table.add_row(plan.plan_version, plan.scope, describe_rates(plan.kind, plan.rates), *when)
        console.print_table(table)
    else:
        console.say(f"No plans: everybody pays OpenAI's price × {settings.billing.markup:f} (billing.markup).")


async def show_plan(settings: Settings, console: Console, name: str, *, as_json: bool) -> None:
    """Every version with its rates."""
    rows = await admin.show_plan(settings, name)
    if as_json:
        console.print_json([_plain(row) for row in rows])
        return
    for row in rows:
        plan = row.plan
        until = "until further notice" if plan.valid_to is None else f"until {rfc3339(plan.valid_to)}"
        console.say(
            f"{plan.plan_version}, for {plan.scope}: {describe_rates(plan.kind, plan.rates)}",
            f"  from {rfc3339(plan.valid_from)} {until}",
            f"  made {rfc3339(row.made_at)} by {row.made_by}, digest {row.digest}",
        )
        if row.ended_at is not None:
            console.say(f"  end set {rfc3339(row.ended_at)} by {row.ended_by}")
        if digest_of(plan) != row.digest:
            console.say("  the digest is not that of this content: somebody changed it in the database")
        for model, units in plan.rates.get("usd_per_unit", {}).items():
            console.say(*(f"  {model} {what}: {usd} USD" for what, usd in _list_prices(units)))


async def explain(
    settings: Settings, console: Console, row: str | None, options: PlanOptions, *, at: datetime | None, as_json: bool
) -> None:
    """Which plan holds, or by what a row was billed."""
    if row is not None:
        found = await admin.explain_row(settings, row)
    else:
        found = await admin.explain_call(settings, options, at=at)
    if as_json:
        console.print_json(_explanation(found))
        return
    if found.row is not None:
        console.say(*_row_lines(found))
    console.say(f"In force for such a call at {rfc3339(found.at)}: {found.terms.name}.")
    if found.candidates:
        table = TextTable("plan", "from (UTC)", "until (UTC)", "", title="The most specific first")
        for each in found.candidates:
            table.add_row(each.plan_version, minute(each.since), minute(each.until), "holds" if each.holds else "")
        console.print_table(table)


def describe_rates(kind: Kind, rates: dict[str, Any]) -> str:
    """What a plan charges, in words."""
    match kind:
        case "markup":
            return f"OpenAI's price × {rates['factor']}"
        case "discount":
            return f"OpenAI's price less {rates['percent']} %"
        case "free":
            return "nothing"
        case "price_list":
            count = sum(len(_list_prices(units)) for units in rates["usd_per_unit"].values())
            return f"{count} own price(s), else OpenAI's × {rates['factor']}"


def _list_prices(units: dict[str, Any]) -> list[tuple[str, str]]:
    """Unit, or unit and tier, with its price."""
    found = []
    for name, usd in units.items():
        found += [(f"{unit} ({name})", each) for unit, each in usd.items()] if isinstance(usd, dict) else [(name, usd)]
    return found


def _show_change(console: Console, change: PlanChange, verb: str, *, as_json: bool) -> None:
    plan, ended = change.plan, change.ended
    if as_json:
        plain = {
            **admin.values_of(plan),
            "ended": None if ended is None else admin.values_of(ended),
            "applied": change.is_made,
        }
        if change.users is not None:
            plain["month"] = f"{change.month.since:%Y-%m}"
            plain["users"] = [_user(each) for each in change.users]
        console.print_json(plain)
        return
    when = plan.valid_from if verb == "starts" else plan.valid_to
    console.say(
        f"{plan.plan_version}, for {plan.scope}: {describe_rates(plan.kind, plan.rates)}; {verb} at {rfc3339(when)}."
    )
    if ended is not None:
        console.say(f"{ended.plan_version} ends at {rfc3339(ended.valid_to)}.")
    if change.users is not None:
        _show_users(console, change.users, f"{change.month.since:%Y-%m}")
    if not change.is_made:
        console.say("Nothing was changed; --yes makes the change.")


def _show_users(console: Console, users: list[UserChange], month: str) -> None:
    if not users:
        console.say(f"No usage of {month} would have been billed by other terms.")
        return
    table = TextTable("user", title=f"Usage of {month} that would have been billed by other terms, USD")
    for name in ("calls", "cost", "billed", "would be", "difference"):
        table.add_column(name, right=True, no_wrap=name != "calls")
    for each in users:
        amounts = (each.cost_usd, each.billed_usd, each.after_usd, each.after_usd - each.billed_usd)
        table.add_row(each.email, f"{each.calls:,}", *map(_usd, amounts))
    total = sum((each.after_usd - each.billed_usd for each in users), Decimal(0))
    console.print_table(table)
    console.say(f"Difference of all: {_usd(total)} USD.")


def _usd(amount: Decimal) -> str:
    return f"{amount:,.9f}"


def _user(change: UserChange) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in change._asdict().items()}


def _plain(row: PlanRow) -> dict[str, Any]:
    return {
        **admin.values_of(row.plan),
        "digest": row.digest,
        "made_at": rfc3339(row.made_at),
        "made_by": row.made_by,
        "ended_at": rfc3339(row.ended_at),
        "ended_by": row.ended_by,
    }


def _explanation(found: Explanation) -> dict[str, Any]:
    row = found.row
    return {
        "at": rfc3339(found.at),
        "plan_version": found.terms.name,
        "candidates": [
            {**each._asdict(), "since": rfc3339(each.since), "until": rfc3339(each.until)} for each in found.candidates
        ],
        "row": None
        if row is None
        else {
            "id": row.id,
            "plan_version": row.plan_version,
            "cost_usd": None if row.cost_usd is None else str(row.cost_usd),
            "billed_usd": None if row.billed_usd is None else str(row.billed_usd),
            "derived_usd": None if found.derived_nano is None else nano_text(found.derived_nano),
        },
    }


def _row_lines(found: Explanation) -> list[str]:
    row = found.row
    assert row is not None
    said = [
        f"{row.id}: cost {_or_unknown(row.cost_usd)} USD, billed {_or_unknown(row.billed_usd)} USD by "
        f"{row.plan_version or 'a version of the gateway that did not say'} ({row.evidence})."
    ]
    if found.derived_nano is not None:
        said.append(f"That follows from its lines and that plan: {nano_text(found.derived_nano)} USD.")
    if row.plan_version is not None and row.plan_version != found.terms.name:
        said.append("Another plan was in force when it began: its proxy could not read plans for a while.")
    return said


def _or_unknown(usd: Decimal | None) -> str:
    return "unknown" if usd is None else f"{usd:f}"
