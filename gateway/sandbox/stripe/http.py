"""The Stripe stand-in on the wire: parameters, idempotency, and the troubles that a test orders."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, NamedTuple

import msgspec
from aiohttp import encode_basic_auth, web

from gateway.sandbox.stripe.expand import expand_answer
from gateway.sandbox.stripe.form import nest, read_form
from gateway.sandbox.stripe.meters import DAY_S, StripeApiError, shorten_lists
from gateway.sandbox.stripe.params import read_list
from gateway.sandbox.stripe.service import StripeService, StripeState

REQUEST_TIMEOUT: Final = 408
"""A request that did not arrive in time, as a load balancer says it."""
NOT_BEGUN: Final = (401, 403, 409, 429)
"""Statuses of requests that were refused before they ran: their idempotency keys are as good as new."""
UNREAD: Final = ("parameter_missing", "parameter_unknown", "parameter_invalid_integer")
"""So are those of parameters that could not be read."""

RateLimitReason = Literal[
    "global-rate", "global-concurrency", "endpoint-rate", "endpoint-concurrency", "resource-specific"
]
LIMITED: Final = "Request rate limit exceeded. Learn more about rate limits here: https://docs.stripe.com/rate-limits."
LOCKED: Final = (
    "This object cannot be accessed right now because another API request or Stripe process is currently accessing it. "
    "If you see this error intermittently, retry the request."
)
Handler = Callable[[web.Request], Awaitable[web.Response]]
Params = dict[str, Any]


class StripeTrouble(msgspec.Struct, forbid_unknown_fields=True):
    """What goes wrong with the next `times` matching requests or, without it, until cleared."""

    times: int | None = None
    path: str | None = None
    """Only requests whose path ends so, as `meter_events`."""
    delay_s: float = 0.0
    """Seconds that the request takes, its place among the concurrent ones kept."""
    status: int | None = None
    """An error instead of the work: 429, 500, 401 and so on."""
    code: str | None = None
    message: str | None = None
    reason: RateLimitReason | None = None
    """Of a 429: `Stripe-Rate-Limited-Reason`; a 429 without one is a lock_timeout (docs.stripe.com, rate-limits)."""
    should_retry: bool | None = None
    """The header `stripe-should-retry`."""
    accept: bool = False
    """The work is done all the same; only the answer is an error or lost."""
    drop: bool = False
    """Closes the connection without an answer."""
    body: str | None = None
    """The whole answer, from something between here and Stripe, which had the request only with `accept`: empty, HTML.
    `status` is 200 unless given."""
    headers: dict[str, str] = {}
    """Of that answer, as `Retry-After`, `Location` or another `Content-Type` than text/html."""

    @property
    def is_between(self) -> bool:
        """Whether the answer is not Stripe's: then Stripe keeps its own for the idempotency key."""
        return self.drop or self.body is not None or self.status == REQUEST_TIMEOUT


class StoredAnswer(NamedTuple):
    """What was sent, as it is sent again to the same idempotency key."""

    status: int
    body: bytes
    headers: dict[str, str]


class First(NamedTuple):
    """The first request of an idempotency key."""

    fingerprint: str
    at: int
    answer: StoredAnswer | None
    """None while it still runs."""


class StripeHttp:
    """One stand-in on the wire."""

    def __init__(self, stripe: StripeService, save: Callable[[StripeState], None]) -> None:
        self.stripe: Final = stripe
        self._save: Final = save
        self.troubles: Final[list[StripeTrouble]] = []
        self.calls: Final[Counter[str]] = Counter()
        self.crowded = 0
        # Stripe takes the key as a bearer token and, as its documentation shows with curl, as a user name.
        self._keys: Final = (f"Bearer {stripe.secret_key}", encode_basic_auth(stripe.secret_key, ""))
        self._kept: Final[dict[str, First]] = {}
        self._running: Final[set[tuple[str, str]]] = set()

    def handler(self, run: Callable[[web.Request, Params], Any], *, session: bool = False) -> Handler:
        """The handler of one endpoint; `session` endpoints take a token instead of the secret key."""

        async def handle(request: web.Request) -> web.Response:
            self.calls[f"{request.method} {path_of(request)}"] += 1
            trouble = self._take(path_of(request))
            try:
                if not session and request.headers.get("Authorization") not in self._keys:
                    raise StripeApiError(401, "Invalid API Key provided: sk_test_***")
                answer = await self._once(request, trouble, run)
            except StripeApiError as refused:
                answer = _refusal(request, refused)
            if trouble.drop and request.transport is not None:
                request.transport.close()
            if trouble.is_between:
                return _between(trouble)
            headers = {"Request-Id": f"req_{secrets.token_hex(7)}", "Content-Type": "application/json"}
            return web.Response(status=answer.status, body=answer.body, headers=headers | answer.headers)

        return handle

    def save(self) -> None:
        """Keeps the present state for the next run."""
        self._save(self.stripe.state())

    async def _once(
        self, request: web.Request, trouble: StripeTrouble, run: Callable[[web.Request, Params], Any]
    ) -> StoredAnswer:
        """Runs a request, or answers as before when its idempotency key has been used. Raises StripeApiError."""
        params = await _params(request)
        key = request.headers.get("Idempotency-Key")
        if key is None or request.method != "POST":
            return await self._run(request, params, trouble, run)
        fingerprint = json.dumps([path_of(request), params], sort_keys=True)
        now = self.stripe.now()
        kept = self._kept.get(key)
        if kept is not None and now - kept.at < DAY_S:
            if kept.fingerprint != fingerprint:
                message = f"Keys for idempotent requests can only be used with the parameters of their first use: {key}"
                raise StripeApiError(400, message, kind="idempotency_error")
            if kept.answer is None:
                message = "There is another request in progress with this idempotency key."
                raise StripeApiError(409, message, kind="idempotency_error", code="idempotency_key_in_use")
            return kept.answer._replace(headers=kept.answer.headers | {"idempotent-replayed": "true"})
        self._kept[key] = First(fingerprint, now, None)
        answer = None
        try:
            answer = await self._run(request, params, trouble, run)
            return answer
        finally:
            # What was refused before it ran may be tried again under the same key; what ran is played back, errors
            # too. v2 runs again what has failed.
            is_v2 = path_of(request).startswith("/v2/")
            if answer is None or answer.status in NOT_BEGUN or (is_v2 and answer.status >= 400):
                del self._kept[key]
            else:
                self._kept[key] = First(fingerprint, now, answer)

    async def _run(
        self, request: web.Request, params: Params, trouble: StripeTrouble, run: Callable[[web.Request, Params], Any]
    ) -> StoredAnswer:
        slot = self.stripe.slot(params) if path_of(request).endswith("/meter_events") else None
        if slot in self._running:
            self.crowded += 1
            raise _too_many(409 if path_of(request).startswith("/v2/") else self.stripe.ways.crowded)
        if slot is not None:
            self._running.add(slot)
        try:
            await asyncio.sleep(trouble.delay_s)
            if trouble.is_between and not trouble.accept:
                # The request never arrived, so its idempotency key is as good as new.
                raise StripeApiError(503, "Nobody reads this.")
            wrong = None if trouble.is_between else _make_error(trouble)
            if wrong is not None and not trouble.accept:
                return _refusal(request, wrong)
            if self.stripe.settle():
                self.save()
            key = request.headers.get("Idempotency-Key")
            self.stripe.account.request = {"id": f"req_{secrets.token_hex(7)}", "idempotency_key": key}
            try:
                answer = expand_answer(run(request, params), read_list(params, "expand"), self.stripe.find)
                done = shorten_lists(answer)
            except StripeApiError as refused:
                if refused.error.get("code") in UNREAD:
                    raise
                return _refusal(request, refused)
            finally:
                self.stripe.account.request = None
            if request.method != "GET":
                self.save()
            return StoredAnswer(200, msgspec.json.encode(done), {}) if wrong is None else _refusal(request, wrong)
        finally:
            if slot is not None:
                self._running.discard(slot)

    def _take(self, path: str) -> StripeTrouble:
        for trouble in self.troubles:
            if trouble.path is None or path.endswith(trouble.path):
                if trouble.times is not None:
                    trouble.times -= 1
                    if trouble.times <= 0:
                        self.troubles.remove(trouble)
                return trouble
        return StripeTrouble()


async def _params(request: web.Request) -> Params:
    """The parameters from wherever the request carries them. Raises StripeApiError (400)."""
    try:
        if request.method in ("GET", "DELETE"):
            return nest(request.query.items())
        body = await request.read()
        if not path_of(request).startswith("/v2/"):
            return read_form(body.decode())
        return msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise StripeApiError(400, f"The request could not be read: {error}") from None


def _between(trouble: StripeTrouble) -> web.Response:
    """What something between says in Stripe's place."""
    if trouble.body is None and trouble.status == REQUEST_TIMEOUT:
        trouble = msgspec.structs.replace(trouble, body="<html><body>408 Request Time-out</body></html>")
    headers = {"Content-Type": "text/html"} | trouble.headers
    return web.Response(status=trouble.status or 200, body=(trouble.body or "").encode(), headers=headers)


def _make_error(trouble: StripeTrouble) -> StripeApiError | None:
    if trouble.status is None:
        return None
    headers: dict[str, str] = {} if trouble.reason is None else {"Stripe-Rate-Limited-Reason": trouble.reason}
    if trouble.should_retry is not None:
        headers["stripe-should-retry"] = str(trouble.should_retry).lower()
    kind, code = "api_error" if trouble.status >= 500 else "invalid_request_error", trouble.code
    message = trouble.message or "The sandbox was told to say so."
    if trouble.status == 429:
        code = code or ("lock_timeout" if trouble.reason is None else "rate_limit")
        message = trouble.message or (LOCKED if code == "lock_timeout" else LIMITED)
    return StripeApiError(trouble.status, message, kind=kind, code=code, headers=headers)


def _too_many(status: int) -> StripeApiError:
    """An event beside another one of the same customer and meter."""
    reason = {"Stripe-Rate-Limited-Reason": "endpoint-concurrency"} if status == 429 else {}
    message = "Too many concurrent requests for this customer and meter."
    return StripeApiError(status, message, headers=reason, v2_code="too_many_concurrent_requests")


def _refusal(request: web.Request, refused: StripeApiError) -> StoredAnswer:
    """The error; v2 has a code for what v1 has none, and no type but for the few kinds of its own."""
    error: dict[str, Any] = refused.error
    if path_of(request).startswith("/v2/"):
        plain = {name: value for name, value in error.items() if name != "param"}
        if error["type"] == "invalid_request_error":
            del plain["type"]
        error = plain if refused.v2_code is None else plain | {"code": refused.v2_code}
    return StoredAnswer(refused.status, msgspec.json.encode({"error": error}), refused.headers)


def path_of(request: web.Request) -> str:
    """The path without the prefix under which the stand-in is mounted."""
    return request.path[max(request.path.find("/v1/"), request.path.find("/v2/"), 0) :]
