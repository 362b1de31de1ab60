"""Daily.co's REST API: past meetings, our webhook, and links to recordings and transcripts (Daily.co's docs).

Asks again where Daily.co says that it was asked too often, or nothing at all; never shows the key.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
import msgspec

from gateway.kit.errors import DependencyDown, DependencyRefused
from gateway.meetings.lenient_json import repair
from gateway.meetings.registration import Webhook, webhook_of, webhooks_of

PAGE: Final = 100
"""Meetings in one answer at most."""
PEOPLE_PAGES_MAX: Final = 200
"""Of one meeting, in one direction; a meeting that seems larger does not come to an end."""
PACE_S: Final = 0.6
"""Seconds between two questions for meetings: 50 in 30 s are allowed."""
TRIES: Final = 6
BACKOFF_S: Final = 1.0
"""Before the second try; then twice as long each time, and a random half more."""
WAIT_MAX_S: Final = 60.0
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024
TIMEOUT_S: Final = 20.0
T = TypeVar("T")
RECORDING: Final = "daily-recording:"
TRANSCRIPT: Final = "daily-transcript:"


class Page(NamedTuple):
    """Meetings, the newest first, as Daily.co writes them, each with `whole`: whether all its people are there."""

    meetings: list[dict[str, Any]]
    cursor: str | None
    """Where the next page begins; None: there is none."""
    total: int | None
    problem: str | None = None
    """Why meetings are not whole, where that is so; of several, the last."""


class Link(NamedTuple):
    """Where something can be fetched for a while."""

    url: str
    expires: int | None
    """Unix instant, seconds; None where Daily.co does not say."""


class _Meetings(msgspec.Struct):
    data: list[dict[str, Any]]
    total_count: float | None = None


class _People(msgspec.Struct):
    data: list[dict[str, Any]] = []


class _Access(msgspec.Struct):
    download_link: str | None = None
    link: str | None = None
    expires: float | None = None


class NotFound(DependencyRefused):
    """Daily.co has nothing there."""


class DailyMeetings:
    """Daily.co's list of meetings. The caller closes the session. Every method raises DependencyDown("daily"), and
    DependencyRefused where the key or the request is at fault."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        api_key: str,
        *,
        sleep: Callable[[float], Awaitable[object]],
        uniform: Callable[[float, float], float],
    ) -> None:
        """`base_url` ends in `/v1`; `uniform` draws a number between two others."""
        self._session: Final = session
        self._base: Final = base_url.rstrip("/")
        self.use_key(api_key)
        self._sleep: Final = sleep
        self._uniform: Final = uniform

    def use_key(self, api_key: str) -> None:
        """Requests from now on are made with this key."""
        self._headers = {"Authorization": f"Bearer {api_key}"}

    async def page(self, since: int, until: int, *, room: str | None = None, after: str | None = None) -> Page:
        """Meetings that began in [since, until), Unix seconds, each with its people; `after` is a page's cursor."""
        query = {"timeframe_start": str(since), "timeframe_end": str(until), "limit": str(PAGE)}
        if room is not None:
            query["room"] = room
        if after is not None:
            query["starting_after"] = after
        answer = _decode(await self._ask("GET", "/meetings", query), _Meetings)
        problem = await self._complete(answer.data)
        cursor = answer.data[-1]["id"] if len(answer.data) == PAGE else None
        await self._sleep(PACE_S)
        total = None if answer.total_count is None else int(answer.total_count)
        return Page(answer.data, cursor, total, problem)

    async def webhooks(self) -> list[Webhook]:
        """All registrations of the domain."""
        return webhooks_of(_decode(await self._ask("GET", "/webhooks"), list[Any]))

    async def create_webhook(self, body: Mapping[str, Any]) -> Webhook:
        """Registers one; Daily.co asks the URL first whether anybody listens."""
        return _read_webhook(await self._ask("POST", "/webhooks", body=body))

    async def update_webhook(self, uuid: str, body: Mapping[str, Any]) -> Webhook:
        """Changes one and sets it going again."""
        return _read_webhook(await self._ask("POST", f"/webhooks/{uuid}", body=body))

    async def link(self, reference: str) -> Link:
        """What `daily-recording:<id>` or `daily-transcript:<id>` stands for now. Raises ValueError for all else."""
        for prefix, path in ((RECORDING, "/recordings/"), (TRANSCRIPT, "/transcript/")):
            if reference.startswith(prefix):
                found = reference.removeprefix(prefix)
                if not found.replace("-", "").replace("_", "").isalnum():
                    break
                access = _decode(await self._ask("GET", f"{path}{found}/access-link"), _Access)
                url = access.download_link or access.link
                if url is None:
                    raise DependencyDown("daily", "an access link without a link")
                return Link(url, None if access.expires is None else int(access.expires))
        raise ValueError("it is not a reference to a recording or transcript of Daily.co's")

    async def _complete(self, meetings: list[dict[str, Any]]) -> str | None:
        """Fetches the people that a list has left out. A failure is reported and loses no meeting."""
        problem, down = None, False
        for meeting in meetings:
            if not isinstance(meeting_id := meeting.get("id"), str):
                raise DependencyDown("daily", "a meeting without an id")
            people, most = meeting.get("participants"), meeting.get("max_participants")
            listed = [one for one in people if isinstance(one, dict)] if isinstance(people, list) else []
            meeting["participants"], meeting["whole"] = listed, isinstance(people, list)
            # So many were there at once: a shorter list has left some out.
            if isinstance(people, list) and not (isinstance(most, int | float) and len(listed) < most):
                continue
            meeting["whole"] = False
            if down:  # the same would be said of every other one, after as many tries
                continue
            try:
                found = await self._people(meeting_id)
            except DependencyDown as error:
                problem, down = f"people of {meeting_id}: {error.detail}", not isinstance(error, DependencyRefused)
            else:
                known = {str(one.get("participant_id")): one for one in listed}
                meeting["participants"], meeting["whole"] = list((known | found).values()), True
        return problem

    async def _people(self, meeting_id: str) -> dict[str, dict[str, Any]]:
        """Everybody in a meeting, by id. Which end a page begins at is not said, so it is walked to both ends; there is
        nothing past an end but a 404."""
        path, found = f"/meetings/{meeting_id}/participants", dict[str, dict[str, Any]]()
        for direction, pick in (("joined_before", min), ("joined_after", max)):
            query = {"limit": str(PAGE)}
            for _ in range(PEOPLE_PAGES_MAX):
                if found:
                    at_the_end = pick(found.values(), key=_join_time)
                    query[direction] = str(at_the_end["participant_id"])
                try:
                    page = _decode(await self._ask("GET", path, query), _People).data
                except NotFound:
                    break
                finally:
                    await self._sleep(PACE_S)
                new = {str(one["participant_id"]): one for one in page if isinstance(one.get("participant_id"), str)}
                if not new.keys() - found.keys():
                    break
                found |= new
            else:
                raise DependencyDown("daily", f"more than {PEOPLE_PAGES_MAX} pages of people in one meeting")
        return found

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> bytes:
        wait_s = BACKOFF_S
        for tries_left in range(TRIES - 1, -1, -1):
            status, answer, retry_after = await self._once(method, path, query, body)
            if status == 200:
                return answer
            if status == 404:
                raise NotFound("daily", _why(status, answer))
            if 400 <= status < 500 and status != 429:
                raise DependencyRefused("daily", _why(status, answer))
            # A registration may have been made by a question that failed; only `too many` says that it was not.
            if not tries_left or (status != 429 and method != "GET"):
                raise DependencyDown("daily", _why(status, answer) if status else answer.decode())
            await self._sleep(min(WAIT_MAX_S, retry_after or wait_s + self._uniform(0, wait_s / 2)))
            wait_s *= 2
        raise AssertionError("the last try returns or raises")

    async def _once(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes, float | None]:
        """Status (0: none, the answer says why), answer, seconds to wait."""
        try:
            async with self._session.request(
                method,
                self._base + path,
                params=query,
                json=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                answer = b""
                while len(answer) <= ANSWER_BYTES_MAX and (piece := await response.content.readany()):
                    answer += piece
                if len(answer) > ANSWER_BYTES_MAX:
                    return 0, b"its answer is too large", None
                return response.status, answer, _seconds(response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, type(error).__name__.encode(), None


def _read_webhook(answer: bytes) -> Webhook:
    webhook = webhook_of(_decode(answer, dict[str, Any]))
    if webhook is None:
        raise DependencyDown("daily", "a webhook without a uuid")
    return webhook


def _join_time(person: Mapping[str, Any]) -> float:
    joined = person.get("join_time")
    return float(joined) if isinstance(joined, int | float) else 0.0


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _why(status: int, answer: bytes) -> str:
    """Status and Daily.co's own words for it, as far as they can be read."""
    try:
        said = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.DecodeError:
        return f"HTTP {status}"
    words = " ".join(str(said[name])[:200] for name in ("error", "info") if name in said)
    return f"HTTP {status} {''.join(char for char in words if char.isprintable())}".strip()


def _decode(answer: bytes, kind: "type[T]") -> "T":
    try:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(repair(answer), type=kind)  # somebody's name has half an emoji
    except (ValueError, RecursionError) as error:
        raise DependencyDown("daily", f"its answer could not be read: {type(error).__name__}") from None
