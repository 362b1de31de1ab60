"""Daily.co: whether it takes our key and tells us about meetings. A call is metered without it."""

from contextlib import AsyncExitStack

from gateway.config.settings import Settings
from gateway.doctor.findings import CheckResult
from gateway.doctor.vendors import in_clear
from gateway.meetings.daily import find_ours, problems_of
from gateway.meetings.opening import open_daily

FIX = "gateway daily register --url https://…/webhooks/daily"


async def daily(settings: Settings, stack: AsyncExitStack) -> list[CheckResult]:
    """Our key, our webhook, and whether we can check what it sends."""
    has_key, has_secret = settings.daily_api_key is not None, settings.daily_webhook_secret is not None
    if not has_key and not has_secret:
        return [CheckResult("daily", "ok", "not configured: meetings are not filled by Daily.co")]
    found = in_clear("daily", "DAILY_BASE_URL", settings.daily_base_url)
    if not has_secret:
        says = "DAILY_WEBHOOK_SECRET is not set: every webhook is refused"
        found.append(CheckResult("daily", "warn", says, "set it to base64 of 32 random bytes, then register"))
    if not has_key:
        says = "DAILY_API_KEY is not set: nothing is filled in that webhooks have not told"
        return [*found, CheckResult("daily", "warn", says, "set it")]
    ours = find_ours(await (await open_daily(stack, settings)).webhooks(), None)
    if ours is None:
        return [*found, CheckResult("daily", "warn", "it has no webhook of ours: it tells us nothing", FIX)]
    secret = None if settings.daily_webhook_secret is None else settings.daily_webhook_secret.get_secret_value()
    wrong = [problem for problem in problems_of(ours, secret) if has_secret or "DAILY_WEBHOOK_SECRET" not in problem]
    found += [CheckResult("daily", "warn", f"its webhook {ours.url}: {problem}", FIX) for problem in wrong]
    return found or [CheckResult("daily", "ok", f"it takes our key, and tells {ours.url}")]
