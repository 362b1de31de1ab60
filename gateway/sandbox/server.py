"""All stand-ins on one port of loopback: OpenAI under /openai, Unkey under /unkey, Stripe under /stripe,
Daily.co under /daily.

For `up`, `demo` and the tests. Must never be reachable from outside: its credentials are public.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from gateway.kit.loopback import is_loopback
from gateway.openai.tokenizer import Tokenizer
from gateway.sandbox import credentials
from gateway.sandbox.daily import routes as daily_control
from gateway.sandbox.daily.routes import Daily
from gateway.sandbox.openai import routes as openai_control
from gateway.sandbox.openai.service import BODY_BYTES_MAX, OpenAI
from gateway.sandbox.openai.tokens import Coder
from gateway.sandbox.saved_state import Keeper
from gateway.sandbox.stripe import routes as stripe_control
from gateway.sandbox.stripe.service import StripeService
from gateway.sandbox.stripe.service import StripeState as StripeKept
from gateway.sandbox.unkey import routes as unkey_control
from gateway.sandbox.unkey.keys import UnkeyState as UnkeyKept
from gateway.sandbox.unkey.service import Unkey
from pricing import book, data

METER: Final = "openai_usage_micro_usd"
"""The meter that exists from the start, as a platform would have set it up."""


def mount_urls(origin: str) -> dict[str, str]:
    """The base URL of each vendor below `origin` (`http://host:port`), as the vendor's SDK wants it."""
    return {
        "openai": f"{origin}/openai/v1",
        "unkey": f"{origin}/unkey",
        "stripe": f"{origin}/stripe",
        "daily": f"{origin}/daily/v1",
    }


@web.middleware
async def _refuse_web_pages(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The stand-ins have no secrets: a page in a browser of this machine must not speak to them, neither from its own
    origin nor by a name of its own that it lets point here."""
    named = [f"//{request.host}", *request.headers.getall("Origin", [])]
    if all(is_loopback(_hostname(each)) for each in named):
        if "/_control" in request.path and request.method == "POST" and request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="control calls are JSON: Content-Type must be application/json")
        return await handler(request)
    return web.json_response({"error": "the sandbox answers programs of this machine alone"}, status=403)


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


class Sandbox:
    """The stand-ins while they serve; their state is open to tests in the same process."""

    def __init__(
        self, runner: web.AppRunner, origin: str, openai: OpenAI, unkey: Unkey, stripe: StripeService, daily: Daily
    ) -> None:
        self._runner: Final = runner
        self.origin: Final = origin
        self.openai: Final = openai
        self.unkey: Final = unkey
        self.stripe: Final = stripe
        self.daily: Final = daily
        self._urls: Final = mount_urls(origin)

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self.origin.rpartition(":")[2])

    @property
    def openai_base_url(self) -> str:
        """Ends in `/v1`."""
        return self._urls["openai"]

    @property
    def unkey_base_url(self) -> str:
        """Without `/v2`."""
        return self._urls["unkey"]

    @property
    def stripe_base_url(self) -> str:
        """Without `/v1`."""
        return self._urls["stripe"]

    @property
    def daily_base_url(self) -> str:
        """Ends in `/v1`."""
        return self._urls["daily"]

    async def close(self) -> None:
        """Stops listening and ends what is still being answered or told."""
        await self.daily.hooks.close()
        await self.stripe.webhooks.close()
        await self._runner.cleanup()


async def start(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    clock: Callable[[], float] = time.time,
    paced: bool = True,
    coder: Coder | None = None,
    keys_file: Path | None = None,
    stripe_file: Path | None = None,
    unkey_root_key: str = credentials.UNKEY_ROOT_KEY,
) -> Sandbox:
    """Serves until closed. `port` 0 takes a free one; `clock` gives Unix seconds; `paced` False answers at once.

    `coder` shares a tokenizer, which takes 0.7 s to build. With `keys_file`, Unkey's keys outlive a restart;
    with `stripe_file`, Stripe's customers, meters and events do. `unkey_root_key`: another than the public one.
    Raises OSError when the port is taken, msgspec.DecodeError when a file is damaged.
    """
    prices = book.parse(data.read_texts())
    openai = OpenAI(prices, coder or Tokenizer(), credentials.OPENAI_API_KEY, clock=clock, paced=paced)
    keys, billing = Keeper(keys_file, UnkeyKept), Keeper(stripe_file, StripeKept)
    unkey = Unkey(unkey_root_key, credentials.UNKEY_API_ID, clock=clock)
    unkey.load(keys.load() or UnkeyKept())
    stripe = StripeService(credentials.STRIPE_SECRET_KEY, clock=clock)
    known = billing.load()
    if known is None:
        stripe.add_meter(METER)
    else:
        stripe.load(known)
    daily = Daily(credentials.DAILY_API_KEY, clock=clock)
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[_refuse_web_pages])
    for prefix, routes in (
        ("/openai", openai_control.routes(openai)),
        ("/unkey", unkey_control.routes(unkey, keys.save)),
        ("/stripe", stripe_control.routes(stripe, billing.save)),
        ("/daily", daily_control.routes(daily)),
    ):
        vendor = web.Application()
        vendor.add_routes(routes)
        app.add_subapp(prefix, vendor)
    # shutdown_timeout: a stream that still runs is cut, as a vendor's outage would.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, keepalive_timeout=75)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    address = runner.addresses[0]
    return Sandbox(runner, f"http://{address[0]}:{address[1]}", openai, unkey, stripe, daily)
