"""Checks Unkey and OpenAI: whether they answer and accept our credentials, and whether their addresses make sense."""

import time
from contextlib import AsyncExitStack
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from gateway.access.verification_results import lacks_bounds
from gateway.config.settings import KeySettings, Settings, require_values
from gateway.doctor.findings import CheckResult, skew
from gateway.http.outbound import proxy_for, vendor_session
from gateway.keys.at_unkey import key_pages
from gateway.keys.bounds import hidden_limits, is_unmarked
from gateway.keys.permissions import are_told
from gateway.keys.unkey_admin import KeyAdmin
from gateway.keys.verify import Keys, Verification, meta_of
from gateway.kit.errors import ConfigError
from gateway.kit.loopback import is_loopback
from gateway.openai.upstream import Upstream
from gateway.usage.regions import region_of

KEYS_LOOKED_AT: Final = 1000
DATE_S: Final = 2.0
"""A Date header has whole seconds, and has been on its way."""


async def unkey(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """A key that cannot exist, and one that must."""
    root_key = require_values(settings, "unkey_root_key")["unkey_root_key"]
    session = await stack.enter_async_context(vendor_session(settings, settings.unkey_base_url))
    keys = Keys(session, settings.unkey_base_url, root_key, timeout_s=5)
    found = in_clear("unkey", "UNKEY_BASE_URL", settings.unkey_base_url)
    verdict = await keys.verify("doctor-no-such-key")
    if verdict.valid:
        return [*found, CheckResult("unkey", "fail", "a key that does not exist is VALID", "check UNKEY_BASE_URL")]
    if settings.unkey_api_id is None:
        found.append(CheckResult("unkey", "warn", "UNKEY_API_ID is not set: `keys create` cannot make keys", "set it"))
    else:
        found += await _keys(settings, root_key, settings.unkey_api_id)
    if settings.keys.canary is None:
        says = "it answers; whether good keys verify was not tried: a root key without permission finds none"
        return [*found, CheckResult("unkey", "warn", says, "set KEYS__CANARY to a key that must verify")]
    canary = await keys.verify(settings.keys.canary.get_secret_value())
    if not canary.valid:
        says = f"keys.canary is {canary.code}: every key would be refused"
        fix = "give the root key the permission api.<UNKEY_API_ID>.verify_key, or fix the canary"
        return [*found, CheckResult("unkey", "fail", says, fix)]
    found += _canary_permissions(canary)
    found += _whose_keys(settings.keys, canary.keyspace_id)
    return found or [CheckResult("unkey", "ok", "it answers, and the canary key verifies")]


def _whose_keys(settings: KeySettings, of_canary: str | None) -> list[CheckResult]:
    """Whether keys of other APIs of the workspace are let in. What the root key may do, Unkey does not tell."""
    found = []
    if settings.keyspace is not None and of_canary not in (None, settings.keyspace):
        says = f"keys.canary is of {of_canary}, and keys.keyspace is another one: every key would be refused"
        found.append(CheckResult("unkey", "fail", says, "correct KEYS__KEYSPACE or the canary"))
    if settings.keyspace is None and of_canary is not None:
        says = "a root key with api.*.verify_key would verify keys of every other API of the workspace, too"
        fix = f"set KEYS__KEYSPACE={of_canary}, and give it api.<UNKEY_API_ID>.verify_key alone"
        found.append(CheckResult("unkey", "warn", says, fix))
    if not settings.require_row:
        says = "keys.require_row is off: a key without a row here has no budget and cannot be revoked by us"
        found.append(CheckResult("unkey", "warn", says, "gateway keys sync --repair, then KEYS__REQUIRE_ROW=true"))
    return found


def _canary_permissions(canary: Verification) -> list[CheckResult]:
    """Whether the canary would tell that Unkey leaves permissions out of its answers."""
    if lacks_bounds(canary):
        says = "keys.canary is a bound key and comes without its permissions: answers without any are not believed"
        fix = "give the canary its permission again; if it has it, Unkey leaves them out (docs/keys.md)"
        return [CheckResult("unkey", "fail", says, fix)]
    if meta_of(canary).bound is not True or not are_told(canary.permissions or ()):
        says = (
            "keys.canary is not a bound key: whether Unkey leaves permissions out of its answers would not be noticed"
        )
        return [
            CheckResult("unkey", "warn", says, "make it with `gateway keys create --endpoints models` (docs/keys.md)")
        ]
    return []


async def _keys(settings: Settings, root_key: str, api_id: str) -> list[CheckResult]:
    """Limits that do not hold and bound keys that are not marked, among the first keys, where the root key may look."""
    collide, unmarked, looked = [], [], 0
    async with KeyAdmin(root_key, base_url=settings.unkey_base_url) as admin:
        try:
            async for page in key_pages(admin, api_id):
                looked += len(page)
                collide += [key.key_id for key in page if hidden_limits(key)]
                unmarked += [key.key_id for key in page if is_unmarked(key)]
                if looked >= KEYS_LOOKED_AT:
                    break
        except ConfigError:  # a proxy's root key need not list keys, and a wrong API id is found by whoever makes one
            return []
    found = []
    if collide:
        says = (
            f"limits of {len(collide)} key(s) hide those of their users with the same names: {', '.join(collide[:5])}"
        )
        found.append(CheckResult("unkey", "warn", says, "`gateway keys show KEY` says how to fix it"))
    if unmarked:
        says = f"{len(unmarked)} key(s) are bound by permissions and not marked so: {', '.join(unmarked[:5])}"
        found.append(CheckResult("unkey", "warn", says, "gateway keys sync --repair"))
    return found


async def openai(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """Our key, the region's price, and its clock."""
    key = require_values(settings, "openai_api_key")["openai_api_key"]
    proxy = proxy_for(settings, settings.openai_base_url)
    upstream = Upstream(settings.openai_base_url, key, connect_s=5, first_byte_s=10, proxy=proxy)
    stack.push_async_callback(upstream.close)
    found = in_clear("openai", "OPENAI_BASE_URL", settings.openai_base_url)
    response = await upstream.send("GET", "/models", {}, None)
    status, date = response.status, response.headers.get("Date")
    response.close()
    if status != 200:
        says = f"GET /models answers {status}"
        return [*found, CheckResult("openai", "fail", says, "check OPENAI_API_KEY and OPENAI_BASE_URL")]
    if date is not None:
        found += _skew_of_date("openai", date)
    region = region_of(settings.openai_base_url)
    priced = "" if region is None else f"; region {region}: tokens cost 10 % more"
    return found or [CheckResult("openai", "ok", f"it answers, and takes our key{priced}")]


def _skew_of_date(what: str, header: str) -> list[CheckResult]:
    """A `Date` header against our clock. One that is not a date says nothing about a clock: some proxy wrote it."""
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return []
    # "-0000" means UTC without a place, and has no zone in Python.
    return skew(what, date.replace(tzinfo=date.tzinfo or UTC).timestamp(), time.time(), DATE_S)


def in_clear(what: str, variable: str, url: str) -> list[CheckResult]:
    """http to another machine carries our credential for all to read."""
    parts = urlsplit(url)
    if parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return []
    says = f"{variable} is http: the credential and every prompt cross the network in clear"
    return [CheckResult(what, "warn", says, "https, unless that network is yours alone")]
