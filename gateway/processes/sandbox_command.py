"""`gateway sandbox`: the vendor stand-ins alone, until Ctrl-C."""

import asyncio

from gateway.cli.text import Say
from gateway.kit.errors import ConfigError
from gateway.processes.supervisor import stop_on_signals
from gateway.sandbox import credentials
from gateway.sandbox import server as stand_ins


async def sandbox(port: int, say: Say) -> None:
    """Serves on loopback and prints the environment that points a gateway at it. Raises ConfigError: a taken port."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    try:
        running = await stand_ins.start("127.0.0.1", port)
    except OSError as error:
        raise ConfigError(f"--port: cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
    for name, value in (
        ("OPENAI_BASE_URL", running.openai_base_url),
        ("OPENAI_API_KEY", credentials.OPENAI_API_KEY),
        ("UNKEY_BASE_URL", running.unkey_base_url),
        ("UNKEY_ROOT_KEY", credentials.UNKEY_ROOT_KEY),
        ("UNKEY_API_ID", credentials.UNKEY_API_ID),
        ("STRIPE_BASE_URL", running.stripe_base_url),
        ("DAILY_BASE_URL", running.daily_base_url),
        ("DAILY_API_KEY", credentials.DAILY_API_KEY),
        ("DAILY_WEBHOOK_SECRET", credentials.DAILY_WEBHOOK_SECRET),
        ("STRIPE_SECRET_KEY", credentials.STRIPE_SECRET_KEY),
    ):
        say(f"export {name}={value}")
    await stop.wait()
    await running.close()
