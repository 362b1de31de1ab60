"""The vendors' stand-ins as a process of `gateway up` and `gateway demo`, with what they must remember in a folder."""

import asyncio

from gateway.config.settings import Settings
from gateway.kit.metrics import Status
from gateway.processes.arguments import ProcessArguments
from gateway.processes.local_keys import read_root_key
from gateway.processes.supervisor import Ready
from gateway.sandbox import server


async def run(settings: Settings, arguments: ProcessArguments, stop: asyncio.Event, ready: Ready) -> None:
    """Until `stop`."""
    kept = settings.gateway_data_dir / "sandbox"
    stand_ins = await server.start(
        arguments.host,
        arguments.port,
        keys_file=kept / "unkey.json",
        stripe_file=kept / "stripe.json",
        unkey_root_key=read_root_key(settings.gateway_data_dir),
    )
    ready(Status)
    await stop.wait()
    await stand_ins.close()
