"""The Unkey stand-in's HTTP: its API under `/v2`, and what goes wrong with it when a test says so."""

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from gateway.sandbox.unkey import bodies
from gateway.sandbox.unkey.forms import UnkeyError, bad, not_found
from gateway.sandbox.unkey.keys import UnkeyState
from gateway.sandbox.unkey.service import VERIFY, Unkey

_TITLES: Final = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 429: "Too Many Requests"}
VERIFIES: Final = "keys.verifyKey"
MASKED: Final = ("keys.createKey", "apis.listKeys")
"""Endpoints that answer a root key without the right as if there were no such API (Unkey's server source)."""
_LACKS: Final = "unkey/authorization/insufficient_permissions"
_TOO_MANY: Final = "user/too_many_requests/workspace_rate_limited"
_DOCS: Final = "https://www.unkey.com/docs/errors/"


class UnkeyTrouble(msgspec.Struct, forbid_unknown_fields=True):
    """What goes wrong with the next `times` matching requests or, without it, until cleared."""

    times: int | None = None
    endpoint: str | None = None
    """Only this one, as `keys.verifyKey`."""
    delay_s: float = 0.0
    status: int | None = None
    """An error: 429 is the workspace's limit, 500 and 503 an outage."""
    retry_after_s: int = 1
    drop: bool = False
    """Does the work (unless `status` is set too), then closes the connection without an answer."""
    code: str | None = None
    """Every verification gets this code: `FORBIDDEN`, `DISABLED`, one that nobody knows."""
    body: str | None = None
    """Answers 200 with this text, whatever it is."""


class UnkeyHttp:
    """One stand-in on the wire."""

    def __init__(self, unkey: Unkey, save: Callable[[UnkeyState], None]) -> None:
        self.unkey: Final = unkey
        self._save: Final = save
        self.troubles: Final[list[UnkeyTrouble]] = []
        self.calls: Final[Counter[str]] = Counter()
        self._minute, self._asked = 0, 0
        """The minute that is counted, and the requests in it."""

    def endpoint(
        self, name: str, body_type: type[Any], run: Callable[[Any], Any], *rights: str
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """The handler of `POST /v2/<name>`; `run` returns the data, or a page of it with its cursor. `rights` are what
        the root key needs."""

        async def handle(request: web.Request) -> web.Response:
            self.calls[name] += 1
            trouble = self._take(name)
            await asyncio.sleep(trouble.delay_s)
            response = await answered(request, trouble)
            if trouble.drop and request.transport is not None:
                request.transport.close()
            return response

        async def answered(request: web.Request, trouble: UnkeyTrouble) -> web.Response:
            try:
                if request.headers.get("Authorization") != f"Bearer {self.unkey.root_key}":
                    raise UnkeyError(401, "Unauthorized", "The provided root key is invalid.")
                self._take_from_quota()
                if trouble.status is not None:
                    title = _TITLES.get(trouble.status, "Service Unavailable")
                    raise UnkeyError(trouble.status, title, "The sandbox was told to say so.")
                lacks = [right for right in rights if right not in self.unkey.permissions]
                if lacks and name in MASKED:
                    raise not_found("API")
                if lacks and name != VERIFIES:
                    raise UnkeyError(403, "Forbidden", f"Missing permission: '{lacks[0]}'", code=_LACKS)
                body = msgspec.json.decode(await request.read(), type=body_type)
                found = run(body)
                self.save_changes(name)
            except (msgspec.DecodeError, RecursionError) as error:
                return _refusal(bad("", str(error)))
            except UnkeyError as refused:
                return _refusal(refused, self._quota(trouble) if refused.status == 429 else {})
            return _answer(found, trouble)

        return handle

    def save_changes(self, name: str) -> None:
        """Keeps what an endpoint may have changed; of a verification only credits, which may be lost."""
        if name not in ("keys.verifyKey", "keys.getKey", "keys.whoami", "apis.listKeys"):
            self._save(self.unkey.kept)

    def _take_from_quota(self) -> None:
        """One request of the minute's. Raises UnkeyError: 429."""
        most, minute = self.unkey.mode.per_minute, int(self.unkey.now_s() // 60)
        if self._minute != minute:
            self._minute, self._asked = minute, 0
        self._asked += 1
        if most is not None and self._asked > most:
            raise UnkeyError(429, _TITLES[429], "The workspace has sent its requests of this minute.", code=_TOO_MANY)

    def _quota(self, trouble: UnkeyTrouble) -> dict[str, str]:
        """What a 429 says of the workspace's limit; to a `UnkeyTrouble` how long that takes."""
        most = self.unkey.mode.per_minute
        wait = trouble.retry_after_s if most is None else math.ceil(60 - self.unkey.now_s() % 60)
        return {
            "RateLimit-Limit": str(most or 100),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(wait),
            "Retry-After": str(wait),
        }

    def _take(self, endpoint: str) -> UnkeyTrouble:
        for trouble in self.troubles:
            if trouble.endpoint in (None, endpoint):
                if trouble.times is not None:
                    trouble.times -= 1
                    if trouble.times <= 0:
                        self.troubles.remove(trouble)
                return trouble
        return UnkeyTrouble()


def _answer(answered: Any, trouble: UnkeyTrouble) -> web.Response:
    if trouble.body is not None:
        return web.Response(text=trouble.body, content_type="application/json")
    body: dict[str, Any] = {"meta": _meta()}
    if isinstance(answered, tuple):
        body["data"], cursor = answered
        body["pagination"] = {"hasMore": cursor is not None} | ({} if cursor is None else {"cursor": cursor})
    else:
        body["data"] = answered
        if trouble.code is not None and "valid" in answered:
            known = {} if trouble.code == "NOT_FOUND" else answered
            body["data"] = known | {"valid": False, "code": trouble.code}
    return as_json(body)


def _refusal(refused: UnkeyError, headers: dict[str, str] | None = None) -> web.Response:
    error: dict[str, Any] = {
        "title": refused.title,
        "detail": refused.detail,
        "status": refused.status,
        "type": f"{_DOCS}{refused.code}",
    }
    if refused.errors is not None:
        error["errors"] = refused.errors
    elif refused.status == 400:
        error["errors"] = []
    return as_json({"meta": _meta(), "error": error}, refused.status, headers)


def _meta() -> dict[str, str]:
    return {"requestId": f"req_{secrets.token_hex(8)}"}


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json", headers=headers
    )


def api_routes(http: UnkeyHttp) -> list[web.RouteDef]:
    """Unkey's API, relative to the stand-in's prefix."""
    unkey = http.unkey
    identities = unkey.identities
    endpoints: list[tuple[str, type[Any], Callable[[Any], Any], *tuple[str, ...]]] = [
        (VERIFIES, bodies.VerifyKey, unkey.verify_key, VERIFY),
        ("keys.createKey", bodies.CreateKey, unkey.create_key, "create_key"),
        ("keys.updateKey", bodies.UpdateKey, unkey.update_key, "update_key"),
        ("keys.addPermissions", bodies.ChangePermissions, unkey.add_permissions, "update_key", "add_permission_to_key"),
        (
            "keys.removePermissions",
            bodies.ChangePermissions,
            unkey.remove_permissions,
            "update_key",
            "remove_permission_from_key",
        ),
        ("keys.getKey", bodies.GetKey, unkey.get_key, "read_key"),
        ("keys.deleteKey", bodies.DeleteKey, unkey.delete_key, "delete_key"),
        ("keys.rerollKey", bodies.RerollKey, unkey.reroll_key, "create_key"),
        ("keys.whoami", bodies.Whoami, unkey.whoami, "read_key"),
        ("keys.updateCredits", bodies.UpdateCredits, unkey.update_credits, "update_key"),
        ("apis.listKeys", bodies.ListKeys, unkey.list_keys, "read_key", "read_api"),
        ("identities.createIdentity", bodies.CreateIdentity, identities.create_identity, "create_identity"),
        ("identities.getIdentity", bodies.GetIdentity, identities.get_identity, "read_identity"),
        ("identities.listIdentities", bodies.ListIdentities, identities.list_identities, "read_identity"),
        ("identities.updateIdentity", bodies.UpdateIdentity, identities.update_identity, "update_identity"),
        ("identities.deleteIdentity", bodies.GetIdentity, identities.delete_identity, "delete_identity"),
    ]
    return [web.post(f"/v2/{name}", http.endpoint(name, body, run, *rights)) for name, body, run, *rights in endpoints]
