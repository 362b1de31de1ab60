"""What `gateway stripe` shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from gateway.billing import stripe_admin
from gateway.billing.explain import output, trace
from gateway.billing.new_secrets import NAME, secrets_file
from gateway.billing.setup import Prepared
from gateway.billing.setup_webhooks import TYPES, WantedWebhooks, check_url
from gateway.billing.webhooks.receive import PATH
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError

NOTES: Final = (
    "By hand, in Stripe's dashboard, because its API cannot set them:",
    "- Settings → Billing → Invoices: finalization grace period 72 hours, and billing.invoice_grace_h = 72 here.",
    "- Customer portal: switch off whatever changes or cancels this price's subscriptions in mid-period.",
    "- Subscriptions: billing_cycle_anchor_config day_of_month 1, hour 0, minute 0, second 0 (UTC),",
    "  so that Stripe's months are the months of the books.",
)
WEBHOOKS: Final = (
    f"- Webhooks: --webhook-url https://YOUR-GATEWAY{PATH} makes them. Or by hand, in Workbench → Webhooks,",
    "  two destinations with this URL, both of whose signing secrets, with a comma between, are STRIPE_WEBHOOK_SECRET:",
    *(f"  {payload} payload: {', '.join(types)}" for payload, types in TYPES.items()),
)


class SetupAsked(NamedTuple):
    """The options of `setup`."""

    dry_run: bool
    webhook_url: str | None
    secrets_file: Path | None
    as_json: bool


async def set_up(settings: Settings, console: Console, asked: SetupAsked, *, is_terminal: bool) -> None:
    """What is at Stripe, what was made, and what is left to do by hand. Raises OptionError, ConfigError,
    DependencyDown."""
    with _webhooks(console, asked, is_terminal=is_terminal) as webhooks:
        done = await stripe_admin.set_up(settings, dry_run=asked.dry_run, webhooks=webhooks)
    if asked.as_json:
        console.print_json(
            {
                "steps": [{"what": one.what, "state": one.state, "details": one.details} for one in done.steps],
                "meter": done.meter_id,
                "price": done.price_id,
                "made": done.made,
            }
        )
        return
    console.say(*_diff(done, dry_run=asked.dry_run))
    if done.price_id is not None:
        console.say(f"Subscribe customers to {done.price_id}.")
    console.say(*NOTES, *(WEBHOOKS if webhooks is None else ()))


@contextmanager
def _webhooks(console: Console, asked: SetupAsked, *, is_terminal: bool) -> Iterator[WantedWebhooks | None]:
    """The webhooks that are wanted, and where their secrets go. Raises OptionError."""
    if asked.webhook_url is None:
        yield None
        return
    url = check_url(asked.webhook_url)
    if asked.dry_run:
        yield WantedWebhooks(url, _never)
    elif asked.secrets_file is not None:
        with secrets_file(asked.secrets_file) as keep:
            yield WantedWebhooks(url, keep)
    elif is_terminal and not asked.as_json:
        yield WantedWebhooks(url, lambda secret: console.say(f"A signing secret for {NAME}, shown once: {secret}"))
    else:
        raise OptionError("--secrets-file FILE: signing secrets are printed on a terminal only, and not with --json")


def _never(_secret: str) -> None:
    raise AssertionError("nothing is made by a look")


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
