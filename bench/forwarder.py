"""The baseline: a bare aiohttp and uvloop forwarder. No keys, no metering, no logging, nothing on disk.

Written the plain way one would, so that the ratio says what metering costs and not how aiohttp is used.
"""

import asyncio
import socket
import sys

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


async def serve(upstream: str, port: int) -> None:
    """Forwards every request to `upstream` until killed."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
            async with session.request(
                request.method, upstream + request.path_qs, data=body, headers=headers
            ) as source:
                passed = {name: value for name, value in source.headers.items() if name.lower() not in HOP_BY_HOP}
                if not source.content_type.startswith("text/event-stream"):
                    return web.Response(status=source.status, headers=passed, body=await source.read())
                answer = web.StreamResponse(status=source.status, headers=passed)
                await answer.prepare(request)
                async for chunk in source.content.iter_any():
                    await answer.write(chunk)
                await answer.write_eof()
                return answer

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        await web.SockSite(runner, listener).start()
        print(listener.getsockname()[1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
