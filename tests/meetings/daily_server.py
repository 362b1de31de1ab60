"""As much of Daily.co's REST API as a client can be tried against: meetings by page, webhooks, links, and troubles."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.support.servers import free_port

KEY = "daily-key-CANARY"


class DailyServer:
    """Answers as told; counts what it is asked."""

    def __init__(self) -> None:
        self.port = free_port()
        self.meetings: list[dict[str, Any]] = []
        """The newest first."""
        self.webhooks: list[Any] = []
        self.troubles: list[tuple[int, str | None]] = []
        """Status and Retry-After of the next answers; 0 cuts the connection."""
        self.asked: list[str] = []
        self.people: list[dict[str, Any]] = [{"participant_id": "late", "join_time": 1, "duration": 2}]
        """Of every meeting, in the order of its pages."""
        self.broken_people: int | None = None
        """Status of every question for people, instead of an answer."""
        self.listens = True
        """Whether the verification of a webhook succeeds."""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.raw_path}")
        if self.troubles:
            status, retry_after = self.troubles.pop(0)
            if status == 0:
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            headers = {} if retry_after is None else {"Retry-After": retry_after}
            return web.json_response({"error": "trouble", "info": "as told"}, status=status, headers=headers)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": "authentication-error", "info": "bad key"}, status=401)
        path = request.path.removeprefix("/v1")
        match request.method, path.strip("/").split("/"):
            case "GET", ["meetings"]:
                return self._page(request)
            case "GET", ["meetings", _, "participants"]:
                return self._people(request)
            case "GET", ["webhooks"]:
                return web.json_response(self.webhooks)
            case "POST", ["webhooks", *uuid]:
                return await self._registered(request, uuid)
            case "GET", ["recordings", name, "access-link"]:
                return web.json_response({"download_link": f"https://example.com/{name}", "expires": 1795500000})
            case "GET", ["transcript", name, "access-link"]:
                return web.json_response({"transcriptId": name, "link": f"https://example.com/{name}.vtt"})
        return web.json_response({"error": "not-found"}, status=404)

    def _page(self, request: web.BaseRequest) -> web.Response:
        query = request.query
        begins, ends = int(query["timeframe_start"]), int(query["timeframe_end"])
        found = [one for one in self.meetings if begins <= one["start_time"] < ends]
        if "room" in query:
            found = [one for one in found if one["room"] == query["room"]]
        ids = [one["id"] for one in found]
        first = ids.index(query["starting_after"]) + 1 if "starting_after" in query else 0
        page = found[first : first + int(query["limit"])]
        return web.json_response({"total_count": len(found), "data": page})

    def _people(self, request: web.BaseRequest) -> web.Response:
        if self.broken_people is not None:
            return web.json_response({"error": "broken", "info": "as told"}, status=self.broken_people)
        query, joins = request.query, {one["participant_id"]: one["join_time"] for one in self.people}
        before = joins[query["joined_before"]] if "joined_before" in query else float("inf")
        after = joins[query["joined_after"]] if "joined_after" in query else 0
        found = [one for one in self.people if after < one["join_time"] < before]
        if not found:  # as Daily.co's page on participants says
            return web.json_response({"error": "not-found", "info": "none"}, status=404)
        return web.json_response({"data": found[: int(query["limit"])]})

    async def _registered(self, request: web.BaseRequest, uuid: list[str]) -> web.Response:
        if not self.listens:
            return web.json_response(
                {"error": "invalid-request-error", "info": "non-200 status code returned"}, status=400
            )
        body = json.loads(await request.read())
        kept = next((one for one in self.webhooks if [one["uuid"]] == uuid), None)
        if kept is None:
            kept = {"uuid": f"uuid-{len(self.webhooks)}", "lastMomentPushed": None}
            self.webhooks.append(kept)
        kept |= body | {"state": "ACTIVE", "failedCount": 0}
        return web.json_response(kept)


@asynccontextmanager
async def daily_server() -> AsyncIterator[DailyServer]:
    """Running until the block ends."""
    server = DailyServer()
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", server.port).start()
    try:
        yield server
    finally:
        await runner.cleanup()


def meeting(number: int, *, room: str = "room", at: int = 1_795_000_000, ongoing: bool = False) -> dict[str, Any]:
    """One of a row of meetings, an hour apart, each with two people."""
    begin = at + number * 3600
    return {
        "id": f"meeting-{number}",
        "room": room,
        "start_time": begin,
        "duration": 600,
        "ongoing": ongoing,
        "max_participants": 2,
        "participants": [
            {
                "user_id": None,
                "participant_id": f"p{number}-{who}",
                "user_name": who,
                "join_time": begin,
                "duration": 300,
            }
            for who in ("a", "b")
        ],
    }
