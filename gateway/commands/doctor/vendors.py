"""Unkey, OpenAI and Stripe: whether they answer, take our credentials, and fit together."""

import ipaddress
import time
from contextlib import AsyncExitStack
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from gateway import build
from gateway.build_stripe import open_billing
from gateway.commands.doctor.findings import Finding, skew
from gateway.core.config import Settings, required
from gateway.core.regions import region_of
from gateway.edges.keys import Keys
from gateway.edges.ledger import open_pool
from gateway.edges.outbox import Outbox
from gateway.edges.upstream import Upstream

REAL_OPENAI: Final = "api.openai.com"
DATE_S: Final = 2.0
"""A Date header has whole seconds, and has been on its way."""


async def unkey(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    """A key that cannot exist, and one that must."""
    root_key = required(settings, "unkey_root_key")["unkey_root_key"]
    session = await stack.enter_async_context(build.vendor_session(settings, settings.unkey_base_url))
    keys = Keys(session, settings.unkey_base_url, root_key, timeout_s=5)
    found = in_clear("unkey", "UNKEY_BASE_URL", settings.unkey_base_url)
    verdict = await keys.verify("doctor-no-such-key")
    if verdict.valid:
        return [*found, Finding("unkey", "fail", "a key that does not exist is VALID", "check UNKEY_BASE_URL")]
    if settings.unkey_api_id is None:
        found.append(Finding("unkey", "warn", "UNKEY_API_ID is not set: `keys create` cannot make keys", "set it"))
    if settings.keys.canary is None:
        says = "it answers; whether good keys verify was not tried: a root key without permission finds none"
        return [*found, Finding("unkey", "warn", says, "set KEYS__CANARY to a key that must verify")]
    canary = await keys.verify(settings.keys.canary.get_secret_value())
    if not canary.valid:
        says = f"keys.canary is {canary.code}: every key would be refused"
        mend = "give the root key the permission api.*.verify_key for the API of your keys, or mend the canary"
        return [*found, Finding("unkey", "fail", says, mend)]
    return found or [Finding("unkey", "ok", "it answers, and the canary key verifies")]


async def openai(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    """Our key, the region's price, and its clock."""
    key = required(settings, "openai_api_key")["openai_api_key"]
    proxy = build.proxy_for(settings, settings.openai_base_url)
    upstream = Upstream(settings.openai_base_url, key, connect_s=5, first_byte_s=10, proxy=proxy)
    stack.push_async_callback(upstream.close)
    found = in_clear("openai", "OPENAI_BASE_URL", settings.openai_base_url)
    response = await upstream.send("GET", "/models", {}, None)
    status, date = response.status, response.headers.get("Date")
    response.close()
    if status != 200:
        says = f"GET /models answers {status}"
        return [*found, Finding("openai", "fail", says, "check OPENAI_API_KEY and OPENAI_BASE_URL")]
    if date is not None:
        found += _skew_of_date("openai", date)
    region = region_of(settings.openai_base_url)
    priced = "" if region is None else f"; region {region}: tokens cost 10 % more"
    return found or [Finding("openai", "ok", f"it answers, and takes our key{priced}")]


async def stripe(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    """The meter, and what is stuck on the way to it."""
    if settings.stripe_secret_key is None:
        mend = "set STRIPE_SECRET_KEY when amounts should be billed"
        return [Finding("stripe", "warn", "not configured: amounts accrue and are not reported", mend)]
    secret = settings.stripe_secret_key.get_secret_value()
    found = in_clear("stripe", "STRIPE_BASE_URL", settings.stripe_base_url)
    is_test, is_real = "_test_" in secret[:8], (urlsplit(settings.openai_base_url).hostname or "").endswith(REAL_OPENAI)
    if is_test and is_real:
        says = "a test key, with the real OpenAI: calls cost money and nobody is charged"
        found.append(Finding("stripe", "warn", says, "a live key (sk_live_ or rk_live_), when this bills customers"))
    if not is_test and not is_real:
        says = "a live key, and an OpenAI that is not OpenAI's: real customers are charged for its calls"
        found.append(Finding("stripe", "warn", says, "a test key while trying"))
    billing = await open_billing(stack, settings, secret)
    problems = await billing.check(settings.billing.meter_event_name)
    found += [Finding("stripe", "warn", problem, "docs/billing.md") for problem in problems]
    found += await _outbox(settings, stack)
    return found or [Finding("stripe", "ok", "the meter is there, nothing is stuck")]


async def _outbox(settings: Settings, stack: AsyncExitStack) -> list[Finding]:
    pool = await open_pool(required(settings, "database_url")["database_url"], connections_max=1)
    stack.push_async_callback(pool.close)
    status = await Outbox(pool).status()
    found = [
        Finding("stripe", "warn", f"{count} meter event(s) {state}", "gateway billing held, docs/billing.md")
        for state in ("rejected", "unknown")
        if (count := status.counts.get(state, 0))
    ]
    if status.users_without_customer:
        says = f"{status.users_without_customer} user(s) with amounts have no Stripe customer; they accrue"
        found.append(Finding("stripe", "warn", says, "gateway users set WHO --stripe-customer cus_…"))
    return found


def _skew_of_date(what: str, header: str) -> list[Finding]:
    """A `Date` header against our clock. One that is no date says nothing of a clock: some proxy wrote it."""
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return []
    # "-0000" means UTC without a place, and has no zone in Python.
    return skew(what, date.replace(tzinfo=date.tzinfo or UTC).timestamp(), time.time(), DATE_S)


def in_clear(what: str, variable: str, url: str) -> list[Finding]:
    """http to another machine carries our credential for all to read."""
    parts = urlsplit(url)
    if parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return []
    says = f"{variable} is http: the credential and every prompt cross the network in clear"
    return [Finding(what, "warn", says, "https, unless that network is yours alone")]


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
