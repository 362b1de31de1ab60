"""What `gateway stripe` shows."""

from datetime import datetime

from gateway.billing import stripe_admin
from gateway.billing.explain import output, trace
from gateway.billing.setup import Prepared
from gateway.cli.console import Console
from gateway.config.settings import Settings

NOTES = (
    "By hand, in Stripe's dashboard, because its API cannot set them:",
    "- Settings → Billing → Invoices: finalization grace period 72 hours, and billing.invoice_grace_h = 72 here.",
    "- Customer portal: switch off whatever changes or cancels this price's subscriptions in mid-period.",
    "- Workbench → Webhooks: two destinations with the URL https://YOUR-GATEWAY/webhooks/stripe,",
    "  one with snapshot payload: customer.*, invoice.*, credit_note.*, billing.credit_grant.*, billing.alert.*;",
    "  one with thin payload: v1.billing.meter.error_report_triggered, v1.billing.meter.no_meter_found;",
    "  both signing secrets, with a comma between them, are STRIPE_WEBHOOK_SECRET.",
    "- Subscriptions: billing_cycle_anchor_config day_of_month 1, hour 0, minute 0, second 0 (UTC),",
    "  so that Stripe's months are the months of the books.",
)


async def set_up(settings: Settings, console: Console, *, dry_run: bool, as_json: bool) -> None:
    """What is at Stripe, what was made, and what is left to do by hand."""
    done = await stripe_admin.set_up(settings, dry_run=dry_run)
    if as_json:
        console.print_json(
            {
                "steps": [{"what": one.what, "state": one.state, "details": one.details} for one in done.steps],
                "meter": done.meter_id,
                "price": done.price_id,
                "made": done.made,
            }
        )
        return
    console.say(*_diff(done, dry_run=dry_run))
    console.say(*NOTES)


async def sync(settings: Settings, console: Console, *, since: datetime, as_json: bool) -> None:
    """How much was read."""
    done = await stripe_admin.sync(settings, since)
    found = done.synced
    console.answer(
        {**found._asdict(), "retried": done.retried},
        f"Read from Stripe: {found.subscriptions} subscriptions, {found.invoices} invoices since {since:%Y-%m-%d} or "
        f"not settled, {found.credit_grants} credit grants.",
        *([f"{done.retried} webhooks that had failed are tried again."] if done.retried else []),
        as_json=as_json,
    )


async def explain(settings: Settings, console: Console, *, name: str, as_csv: bool, as_json: bool) -> bool:
    """What something is made of, and where it is billed; whether all of it is explained."""
    found = await trace.explain(settings, name)
    if as_csv:
        console.write_lines(output.to_csv(found))
    elif as_json:
        console.print_json(output.to_json(found))
    else:
        output.show(console, found)
    return output.is_whole(found)


def _diff(done: Prepared, *, dry_run: bool) -> list[str]:
    signs = {"is there": " ", "missing": "+", "differs": "~"}
    said = []
    for step in done.steps:
        said.append(f"{signs[step.state]} {step.what}: {step.state}")
        said += [f"    {detail}" for detail in step.details]
    if all(step.make is None for step in done.steps):
        return [*said, "Nothing to do."]
    return [*said, "Nothing was changed (--dry-run)." if dry_run else f"Made: {', '.join(done.made)}."]
