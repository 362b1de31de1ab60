"""The Daily.co stand-in's HTTP: its API under `/v1`, and what a test has happen under `/_control`.

POST   /_control/faults        the fields of `Faults`; what is not named is off
POST   /_control/start         {"room", "at"?, "meeting_id"?} → {"meeting_id"}
POST   /_control/join          {"meeting_id", "name", "user_id"?, "owner"?, "at"?} → {"session_id"}
POST   /_control/leave         {"meeting_id", "session_id", "at"?}
POST   /_control/end           {"meeting_id", "at"?}
POST   /_control/record        {"meeting_id", "at"?, "duration"?, "fails"?} → {"recording_id"}
POST   /_control/transcribe    {"meeting_id", "duration"?} → {"transcript_id"}
POST   /_control/meetings      a whole past meeting that nobody is told about: {"id", "room", "start", "end", "people":
                               [{"session_id", "name", "joined_at", "left_at"}]}
POST   /_control/enter         {"room", "name", "user_id"?, "owner"?, "at"?} → {"session_id"}: somebody comes into a
                               room; sessions begin and end by Daily.co's own rules (rooms.py), in order of time
POST   /_control/exit          {"session_id", "at"?}: they go
POST   /_control/pass          {"at"?} → {"meetings"}: what the rules bring about until then; ids of all meetings
POST   /_control/webhooks      {"foreign"?: entries of `GET /webhooks` that are not ours, or "odd" for odd ones,
                               "overlay"?: members of ours that are told otherwise, "without"?: [members left out]}
POST   /_control/release       {"seed"?, "reversed"?}: tells what was held back, shuffled, or the last first: who leaves
                               before they came, who came before it began
POST   /_control/limits        {"times"}: so many requests get 429
POST   /_control/speed         {"factor", "answer_s"?}: pauses between tries are so much shorter
GET    /_control/deliveries    {"deliveries": [{"event_id", "type", "url", "statuses"}]}, once all have arrived
DELETE /_control               no fault
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from gateway.sandbox.daily.hooks import ODD_HOOKS, Hooks, NobodyListens
from gateway.sandbox.daily.rooms import LiveRooms
from gateway.sandbox.daily.service import Faults, LiveSession, Participant, Unknown, World

PAGE_MAX: Final = 100
LINK_S: Final = 3600
SETTLE_S: Final = 20.0
Handler = Callable[[web.Request], Awaitable[web.Response]]
Act = Callable[[dict[str, Any]], dict[str, Any]]


class Daily:
    """The stand-in."""

    def __init__(self, api_key: str, *, clock: Callable[[], float]) -> None:
        self.api_key: Final = api_key
        self.clock: Final = clock
        self.hooks: Final = Hooks(clock=clock)
        self.world: Final = World(self.hooks.tell, clock=clock)
        self.hooks.world = self.world
        self.rooms: Final = LiveRooms(self.world)
        self.limited = 0
        """Requests that are to get 429."""


def routes(daily: Daily) -> list[web.RouteDef]:
    """All of it, to be mounted under a prefix."""
    return [*_api(daily), *_control(daily)]


def _api(daily: Daily) -> list[web.RouteDef]:
    world = daily.world

    async def meetings(request: web.Request) -> web.Response:
        found = _select_sessions(world, request.query)
        return _page(found, [session.id for session in found], request, lambda session: world.as_rest(
            session, people=request.query.get("no_participants") != "true", most=world.faults.short_lists))  # fmt: skip

    async def meeting(request: web.Request) -> web.Response:
        return web.json_response(world.as_rest(world.session(request.match_info["id"]), people=True))

    async def people(request: web.Request) -> web.Response:
        session = world.session(request.match_info["id"])
        told = [world.person_as_rest(session, person) for person in _people_page(session, request.query)]
        return web.json_response({"data": told})

    async def recordings(request: web.Request) -> web.Response:
        room = request.query.get("room_name")
        found = [one for one in reversed(world.recordings.values()) if room in (None, one.room)]
        return _page(found, [one.id for one in found], request, lambda one: {
            "id": one.id, "room_name": one.room, "start_ts": int(one.start), "status": "finished",
            "duration": int(one.duration), "mtgSessionId": one.session_id})  # fmt: skip

    async def recording_link(request: web.Request) -> web.Response:
        if request.match_info["id"] not in world.recordings:
            raise Unknown("there is no such recording")
        link = f"https://sandbox.example.com/{request.match_info['id']}.mp4"
        return web.json_response({"download_link": link, "expires": int(daily.clock()) + LINK_S})

    async def transcripts(request: web.Request) -> web.Response:
        of = request.query.get("mtgSessionId")
        found = [one for one in world.transcripts.values() if of in (None, one.session_id)]
        told = [{"transcriptId": one.id, "mtgSessionId": one.session_id, "status": "t_finished"} for one in found]
        return web.json_response({"total_count": len(told), "data": told})

    async def transcript_link(request: web.Request) -> web.Response:
        if request.match_info["id"] not in world.transcripts:
            raise Unknown("there is no such transcript")
        transcript_id = request.match_info["id"]
        link = f"https://sandbox.example.com/{transcript_id}.vtt"
        return web.json_response({"transcriptId": transcript_id, "link": link})

    table: list[tuple[str, str, Handler]] = [
        ("GET", "/v1/meetings", meetings),
        ("GET", "/v1/meetings/{id}", meeting),
        ("GET", "/v1/meetings/{id}/participants", people),
        ("GET", "/v1/recordings", recordings),
        ("GET", "/v1/recordings/{id}/access-link", recording_link),
        ("GET", "/v1/transcript", transcripts),
        ("GET", "/v1/transcript/{id}/access-link", transcript_link),
        *_webhooks(daily.hooks),
    ]
    return [web.route(method, path, _guard_handler(daily, handler)) for method, path, handler in table]


def _webhooks(hooks: Hooks) -> list[tuple[str, str, Handler]]:
    async def listed(_: web.Request) -> web.Response:
        return web.json_response(hooks.listed())

    async def registered(request: web.Request) -> web.Response:
        uuid = request.match_info.get("uuid")
        if uuid is not None and uuid not in hooks.registered:
            raise Unknown("there is no such webhook")
        body = msgspec.json.decode(await request.read(), type=dict[str, Any])
        return web.json_response(hooks.plain(await hooks.register(uuid, body)))

    async def one(request: web.Request) -> web.Response:
        if request.match_info["uuid"] not in hooks.registered:
            raise Unknown("there is no such webhook")
        hook = hooks.registered[request.match_info["uuid"]]
        if request.method == "DELETE":
            del hooks.registered[hook.uuid]
        return web.json_response(hooks.plain(hook))

    return [
        ("GET", "/v1/webhooks", listed),
        ("POST", "/v1/webhooks", registered),
        ("POST", "/v1/webhooks/{uuid}", registered),
        ("GET", "/v1/webhooks/{uuid}", one),
        ("DELETE", "/v1/webhooks/{uuid}", one),
    ]


def _acts(daily: Daily) -> dict[str, Act]:
    """The actions that a test can trigger, by the last part of the path."""
    world = daily.world

    def faults(said: dict[str, Any]) -> dict[str, Any]:
        world.faults = msgspec.convert(said, Faults)
        return said

    def past(said: dict[str, Any]) -> dict[str, Any]:
        there = [
            Participant(one["session_id"], one["name"], one["session_id"], False, one["joined_at"], one["left_at"])
            for one in said.get("people", [])
        ]
        world.add(LiveSession(said["id"], said["room"], said["start"], said["end"], there))
        return {"meeting_id": said["id"]}

    def limits(said: dict[str, Any]) -> dict[str, Any]:
        daily.limited = int(said["times"])
        return said

    def speed(said: dict[str, Any]) -> dict[str, Any]:
        daily.hooks.speed = float(said["factor"])
        daily.hooks.answer_s = float(said.get("answer_s", daily.hooks.answer_s))
        return said

    def webhooks(said: dict[str, Any]) -> dict[str, Any]:
        foreign = said.get("foreign", [])
        daily.hooks.foreign = list(ODD_HOOKS if foreign == "odd" else foreign)
        daily.hooks.overlay, daily.hooks.without = dict(said.get("overlay", {})), list(said.get("without", []))
        return said

    return {
        "faults": faults,
        "start": lambda said: {"meeting_id": world.start(**said).id},
        "join": lambda said: {"session_id": world.join(**said).session_id},
        "leave": lambda said: {"session_id": world.leave(**said).session_id},
        "end": lambda said: {"meeting_id": world.end(**said).id},
        "enter": lambda said: {"session_id": daily.rooms.enter(**said)},
        "exit": lambda said: {"session_id": daily.rooms.leave(**said)},
        "pass": lambda said: {"meetings": daily.rooms.pass_time(**said)},
        "webhooks": webhooks,
        "record": lambda said: {"recording_id": world.record(**said)},
        "transcribe": lambda said: {"transcript_id": world.transcribe(**said)},
        "meetings": past,
        "release": lambda said: {"released": world.release(**said)},
        "limits": limits,
        "speed": speed,
    }


def _control(daily: Daily) -> list[web.RouteDef]:
    def happens(act: Act) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            try:
                said = msgspec.json.decode(await request.read() or b"{}", type=dict[str, Any])
                return web.json_response(act(said))
            except (msgspec.DecodeError, msgspec.ValidationError, TypeError, ValueError, KeyError) as error:
                return web.json_response({"error": str(error)}, status=400)

        return handle

    async def deliveries(_: web.Request) -> web.Response:
        async with asyncio.timeout(SETTLE_S):
            await daily.hooks.settled()
        told = [vars(delivery) for delivery in daily.hooks.deliveries]
        return web.json_response({"deliveries": told})

    acts = _acts(daily)
    return [
        *(web.post(f"/_control/{name}", happens(act)) for name, act in acts.items()),
        web.get("/_control/deliveries", deliveries),
        web.delete("/_control", happens(lambda _: acts["faults"]({}))),
    ]


def _guard_handler(daily: Daily, handler: Handler) -> Handler:
    """The key, the limit, and errors as Daily.co words them."""

    async def handle(request: web.Request) -> web.Response:
        header = request.headers.get("Authorization")
        if header is None:
            return _error(400, "authorization-header-error", "missing authorization header")
        if header != f"Bearer {daily.api_key}":
            return _error(401, "authentication-error", "invalid api key")
        if daily.limited > 0:
            daily.limited -= 1
            return _error(429, "rate-limit-error", "too many requests")
        try:
            return await handler(request)
        except Unknown as error:
            return _error(404, "not-found", str(error))
        except NobodyListens as error:
            return _error(400, "invalid-request-error", str(error))
        except (ValueError, msgspec.DecodeError) as error:
            return _error(400, "invalid-request-error", str(error))

    return handle


def _select_sessions(world: World, query: Any) -> list[LiveSession]:
    begins, ends = float(query.get("timeframe_start", "0")), float(query.get("timeframe_end", "inf"))
    found = [
        session
        for session in world.sessions.values()
        if begins <= session.start < ends
        and query.get("room") in (None, session.room)
        and query.get("ongoing") in (None, "true" if session.end is None else "false")
    ]
    return sorted(found, key=lambda session: (-session.start, session.id))


def _people_page(session: LiveSession, query: Any) -> list[Participant]:
    """The newest first. Past either end it raises Unknown; whether Daily.co does of a meeting without people is not
    known."""
    there = sorted(session.people, key=lambda person: -person.joined_at)
    ids = [person.session_id for person in there]
    if "joined_before" in query:
        there = there[ids.index(query["joined_before"]) + 1 :]
    elif "joined_after" in query:
        there = there[: ids.index(query["joined_after"])]
    if not there:
        raise Unknown("no participants found")
    return there[: int(query.get("limit", PAGE_MAX))]


def _page(
    found: list[Any], ids: list[str], request: web.Request, plain: Callable[[Any], dict[str, Any]]
) -> web.Response:
    query = request.query
    limit = int(query.get("limit", str(PAGE_MAX)))
    if not 1 <= limit <= PAGE_MAX:
        raise ValueError(f"limit must be 1 to {PAGE_MAX}")
    first, last = 0, len(found)
    if "starting_after" in query:
        first = ids.index(query["starting_after"]) + 1
    if "ending_before" in query:
        last = ids.index(query["ending_before"])
        first = max(first, last - limit)
    page = found[first : min(last, first + limit)]
    return web.json_response({"total_count": len(found), "data": [plain(one) for one in page]})


def _error(status: int, error: str, info: str) -> web.Response:
    return web.json_response({"error": error, "info": info}, status=status)
