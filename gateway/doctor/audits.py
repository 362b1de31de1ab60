"""Checks that an audit of everything has been kept, from which others go on."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.audit.kept import build_mark_signer, read_kept
from gateway.audit.reads.snapshot import snapshot
from gateway.config.settings import Settings, require_values
from gateway.doctor.findings import CheckResult
from gateway.kit.instants import rfc3339
from gateway.stores.postgres import open_pool

AGE_MAX: Final = timedelta(days=62)
"""Two months: a close, or `gateway audit --all`, keeps one."""
FIX: Final = "gateway audit --all (docs/audit.md)"


async def kept_audit(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """What was kept last. Without GATEWAY_SECRETS nothing is, of which their own row speaks."""
    if (signer := build_mark_signer(settings)) is None:
        return []
    pool = await open_pool(require_values(settings, "database_url")["database_url"], connections_max=1)
    stack.push_async_callback(pool.close)
    async with snapshot(pool) as view:
        kept = await read_kept(view, signer, is_whole=False)
    if kept.faults.found:
        return [CheckResult("audit", "warn", f"the kept result is not genuine: {kept.faults.examples[0]}", FIX)]
    if kept.newest is None:
        return [CheckResult("audit", "ok", "no result is kept yet: every audit compares sums of all time")]
    newest = kept.newest
    says = f"sums before {rfc3339(newest.until)} were compared at {rfc3339(newest.as_of)} ({newest.made_by})"
    if datetime.now(UTC) - newest.as_of > AGE_MAX:
        return [CheckResult("audit", "warn", f"{says}: audits compare all since then, each time", FIX)]
    return [CheckResult("audit", "ok", says)]
