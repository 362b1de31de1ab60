"""Opens Daily.co's API from settings; the caller's stack closes it."""

import asyncio
import random
from contextlib import AsyncExitStack

from gateway.config.settings import Settings, require_values
from gateway.http.outbound import vendor_session
from gateway.meetings.daily_api import DailyMeetings


async def open_daily(stack: AsyncExitStack, settings: Settings) -> DailyMeetings:
    """Daily.co's REST API, closed by the stack. Raises ConfigError without its key."""
    key = require_values(settings, "daily_api_key")["daily_api_key"]
    session = await stack.enter_async_context(vendor_session(settings, settings.daily_base_url))
    # No secret: two workers should not come back at the same moment.
    return DailyMeetings(session, settings.daily_base_url, key, sleep=asyncio.sleep, uniform=random.uniform)
