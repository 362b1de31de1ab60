"""Stripe: whether it answers, has the meter and customers, and counts what it received; what is stuck on the way."""

from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from gateway.accounts.payers import PayerStore
from gateway.accounts.store import Accounts
from gateway.billing.customers import ask_customers
from gateway.billing.mirror.balances import BalanceStore
from gateway.billing.opening import open_billing
from gateway.billing.outbox import HELD_STATES, Outbox
from gateway.billing.stripe import Billing
from gateway.billing.unbilled import read_unbilled
from gateway.config.settings import Settings, require_values
from gateway.doctor.findings import CheckResult
from gateway.doctor.invoices import check_invoices
from gateway.doctor.vendors import in_clear
from gateway.kit.clock import now
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.kit.instants import rfc3339
from gateway.stores.postgres import Pool, open_pool
from pricing import nano_text

REAL_OPENAI: Final = "api.openai.com"
CUSTOMERS_MAX: Final = 50
"""Customers asked about at most; `users list --stripe` asks about all."""
NAMED_MAX: Final = 5
READ_ACCOUNT: Final = "rak_accounts_kyc_basic_read"
"""As Stripe's errors name it (their form: stripe/stripe-node issue 2246); its docs have no list of names."""
BALANCE_AGE_MAX: Final = timedelta(minutes=15)
"""How old a balance of credit at Stripe is at most before it is named."""
REPORTED: Final = timedelta(days=29)
"""Error reports looked at; Stripe keeps them for 30 days."""


async def stripe(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """The meter, the customers, and what is stuck on the way to them."""
    if settings.stripe_secret_key is None:
        fix = "set STRIPE_SECRET_KEY when amounts should be billed"
        return [CheckResult("stripe", "warn", "not configured: amounts accrue and are not reported", fix)]
    secret = settings.stripe_secret_key.get_secret_value()
    found = in_clear("stripe", "STRIPE_BASE_URL", settings.stripe_base_url)
    is_test, is_real = "_test_" in secret[:8], (urlsplit(settings.openai_base_url).hostname or "").endswith(REAL_OPENAI)
    if is_test and is_real:
        says = "a test key, with the real OpenAI: calls cost money and nobody is charged"
        found.append(
            CheckResult("stripe", "warn", says, "a live key (sk_live_ or rk_live_), when this bills customers")
        )
    if not is_test and not is_real:
        says = "a live key, and an OpenAI that is not OpenAI's: real customers are charged for its calls"
        found.append(CheckResult("stripe", "warn", says, "a test key while trying"))
    billing = await open_billing(stack, settings, secret)
    problems = await billing.check(settings.billing.meter_event_name)
    found += [CheckResult("stripe", "warn", problem, "docs/billing.md") for problem in problems]
    pool = await open_pool(require_values(settings, "database_url")["database_url"], connections_max=1)
    stack.push_async_callback(pool.close)
    outbox = Outbox(pool)
    found += await _stuck(outbox)
    found += await _payers(pool)
    found += await _of_other_accounts(billing, outbox)
    found += await _customers(billing, Accounts(pool))
    found += await _check_uncounted(billing, outbox, settings.billing.meter_event_name, now() - REPORTED)
    found += await check_invoices(settings, pool)
    return found or [CheckResult("stripe", "ok", "the meter and the customers are there, nothing is stuck")]


async def _stuck(outbox: Outbox) -> list[CheckResult]:
    status = await outbox.status()
    return [
        CheckResult("stripe", "warn", f"{count} meter event(s) {state}", "gateway billing held, docs/billing.md")
        for state in HELD_STATES
        if (count := status.counts.get(state, 0))
    ]


async def _payers(pool: Pool) -> list[CheckResult]:
    """Who owes and has nobody who pays; and who has credit that is not used, because the customer is invoiced."""
    found = []
    if unbilled := await read_unbilled(pool, now()):
        owes = [f"{user.email} {nano_text(user.nano)} USD" for user in unbilled]
        says = f"{len(unbilled)} user(s) with amounts that no customer pays; they wait for a decision: {_first(owes)}"
        fix = "gateway billing unbilled; gateway users set WHO --stripe-customer cus_… --accrued …"
        found.append(CheckResult("stripe", "warn", says, fix))
    if both := await PayerStore(pool).with_unused_credit():
        names = [f"{email} {nano_text(nano)} USD ({customer}, {mode})" for email, nano, customer, mode in both]
        says = f"{len(both)} user(s) have credit here, and their customer is invoiced for everything: {_first(names)}"
        found.append(CheckResult("stripe", "warn", says, "gateway customers set CUSTOMER --mode prepaid"))
    if old := await BalanceStore(pool).older_than(now() - BALANCE_AGE_MAX):
        names = [f"{customer} ({'never' if at is None else rfc3339(at)})" for customer, at in old]
        says = f"credit at Stripe was not read for 15 minutes: {_first(names)}; it bounds calls of these customers"
        fix = "see that a worker with STRIPE_SECRET_KEY runs, and that the key may read credit grants and invoices"
        found.append(CheckResult("stripe", "warn", says, fix))
    return found


async def _of_other_accounts(billing: Billing, outbox: Outbox) -> list[CheckResult]:
    """Events that this key's account must not get."""
    try:
        others = await outbox.of_other_accounts(await billing.account())
    except ConfigError as error:
        says = f"whose account the key is of cannot be read, so nothing is billed: {error}"
        fix = f"give the restricted key the permission to read its account ({READ_ACCOUNT}), or use another key"
        return [CheckResult("stripe", "fail", says, fix)]
    return [
        CheckResult(
            "stripe", "fail", f"{count} meter event(s) wait for the Stripe account {account}", "docs/billing.md"
        )
        for account, count in others.items()
    ]


async def _customers(billing: Billing, accounts: Accounts) -> list[CheckResult]:
    """Customers of users that Stripe does not have: it takes their events and counts none."""
    known = await ask_customers(billing, await accounts.customers(at_most=CUSTOMERS_MAX))
    gone = [f"{one} {at.problem}" for one, at in known.items() if not isinstance(at, str) and at.problem is not None]
    unasked = {at for at in known.values() if isinstance(at, str)}
    found = []
    if gone:
        fix = "gateway users set WHO --stripe-customer cus_…; gateway users list --stripe asks about all of them"
        found.append(CheckResult("stripe", "warn", f"usage would be lost: customer {_first(gone)}", fix))
    if unasked:
        says = f"whether it has the customers is not known: {sorted(unasked)[0]}"
        found.append(CheckResult("stripe", "warn", says, "a key that may read customers"))
    return found


async def _check_uncounted(billing: Billing, outbox: Outbox, meter: str, since: datetime) -> list[CheckResult]:
    """What Stripe has reported of events that it took with a 200 and did not count."""
    try:
        reports = await billing.read_uncounted(meter, since)
    except (ConfigError, DependencyDown) as error:
        says = f"its reports on meter events that it did not count could not be read: {error}"
        return [
            CheckResult("stripe", "warn", says, "a key that may read events; gateway audit --stripe compares the sums")
        ]
    found = []
    for report in reports:
        customers = await outbox.customers_of(report.identifiers)
        whose = f", of {_first(customers)}" if customers else ""
        says = f"{report.events} meter event(s) received since {since:%Y-%m-%d} and not counted: {report.code}{whose}"
        found.append(CheckResult("stripe", "warn", says, "gateway audit --stripe has the amounts; docs/billing.md"))
    return found


def _first(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"{', '.join(names[:NAMED_MAX])}{more}"
