"""The Unkey stand-in's HTTP: its API under `/v2`, and the control calls of tests under `/_control`.

GET    /_control          the troubles that wait
POST   /_control          adds one: a JSON object with the fields of `Trouble`; unknown ones are 400
DELETE /_control          no trouble, and all permissions for the root key
POST   /_control/root     {"permissions": ["verify_key", …]}: what the root key may do from now on
POST   /_control/keys     {"key", "external_id"?, "key_id"?, "expires"?, "enabled"?, "remaining"?}: a key of this text
POST   /_control/revoke   {"key_id"}: deletes a key
GET    /_control/calls    {"calls": {"keys.verifyKey": 3, …}}: requests by endpoint, refused ones too
DELETE /_control/calls    counts from 0 again
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from gateway.sandbox import unkey_bodies as bodies
from gateway.sandbox.unkey import ALL_PERMISSIONS, VERIFY, Kept, Unkey
from gateway.sandbox.unkey_forms import Refused, bad

_TITLES: Final = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 429: "Too Many Requests"}
_DOCS: Final = "https://www.unkey.com/docs/errors/"


class Trouble(msgspec.Struct, forbid_unknown_fields=True):
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


class _FixtureKey(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    external_id: str | None = None
    key_id: str | None = None
    expires: int | None = None
    enabled: bool = True
    remaining: int | None = None


class _Root(msgspec.Struct, forbid_unknown_fields=True):
    permissions: list[str]


class _Revoked(msgspec.Struct, forbid_unknown_fields=True):
    key_id: str


class UnkeyHttp:
    """One stand-in on the wire."""

    def __init__(self, unkey: Unkey, save: Callable[[Kept], None]) -> None:
        self.unkey: Final = unkey
        self._save: Final = save
        self.troubles: Final[list[Trouble]] = []
        self.calls: Final[Counter[str]] = Counter()

    def endpoint(
        self, name: str, body_type: type[Any], run: Callable[[Any], Any], permission: str
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """The handler of `POST /v2/<name>`; `run` returns the data, or a page of it with its cursor."""

        async def handle(request: web.Request) -> web.Response:
            self.calls[name] += 1
            trouble = self._take(name)
            await asyncio.sleep(trouble.delay_s)
            response = await answered(request, trouble)
            if trouble.drop and request.transport is not None:
                request.transport.close()
            return response

        async def answered(request: web.Request, trouble: Trouble) -> web.Response:
            try:
                if request.headers.get("Authorization") != f"Bearer {self.unkey.root_key}":
                    raise Refused(401, "Unauthorized", "The provided root key is invalid.")
                if trouble.status is not None:
                    title = _TITLES.get(trouble.status, "Service Unavailable")
                    raise Refused(trouble.status, title, "The sandbox was told to say so.")
                if permission != VERIFY and permission not in self.unkey.permissions:
                    raise Refused(403, "Forbidden", f"Missing permission: 'api.*.{permission}'")
                body = msgspec.json.decode(await request.read(), type=body_type)
                found = run(body)
                self.changed(name)
            except (msgspec.DecodeError, RecursionError) as error:
                return _refusal(bad("", str(error)), trouble)
            except Refused as refused:
                return _refusal(refused, trouble)
            return _answer(found, trouble)

        return handle

    def changed(self, name: str) -> None:
        """Keeps what an endpoint may have changed; of a verification only credits, which may be lost."""
        if name not in ("keys.verifyKey", "keys.getKey", "keys.whoami", "apis.listKeys"):
            self._save(self.unkey.kept)

    def _take(self, endpoint: str) -> Trouble:
        for trouble in self.troubles:
            if trouble.endpoint in (None, endpoint):
                if trouble.times is not None:
                    trouble.times -= 1
                    if trouble.times <= 0:
                        self.troubles.remove(trouble)
                return trouble
        return Trouble()


def _answer(answered: Any, trouble: Trouble) -> web.Response:
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
    return _json(body)


def _refusal(refused: Refused, trouble: Trouble) -> web.Response:
    kind = refused.title.lower().replace(" ", "_")
    error: dict[str, Any] = {
        "title": refused.title,
        "detail": refused.detail,
        "status": refused.status,
        "type": f"{_DOCS}{kind}",
    }
    if refused.errors is not None:
        error["errors"] = refused.errors
    elif refused.status == 400:
        error["errors"] = []
    headers = {}
    if refused.status == 429:
        wait = str(trouble.retry_after_s)
        headers = {"RateLimit-Limit": "100", "RateLimit-Remaining": "0", "RateLimit-Reset": wait, "Retry-After": wait}
    return _json({"meta": _meta(), "error": error}, refused.status, headers)


def _meta() -> dict[str, str]:
    return {"requestId": f"req_{secrets.token_hex(8)}"}


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json", headers=headers
    )


def routes(unkey: Unkey, save: Callable[[Kept], None]) -> list[web.RouteDef]:
    """Everything that the stand-in answers, relative to its prefix; `save` is called after every change."""
    http = UnkeyHttp(unkey, save)
    endpoints: list[tuple[str, type[Any], Callable[[Any], Any], str]] = [
        ("keys.verifyKey", bodies.VerifyKey, unkey.verify_key, VERIFY),
        ("keys.createKey", bodies.CreateKey, unkey.create_key, "create_key"),
        ("keys.updateKey", bodies.UpdateKey, unkey.update_key, "update_key"),
        ("keys.getKey", bodies.GetKey, unkey.get_key, "read_key"),
        ("keys.deleteKey", bodies.DeleteKey, unkey.delete_key, "delete_key"),
        ("keys.rerollKey", bodies.RerollKey, unkey.reroll_key, "create_key"),
        ("keys.whoami", bodies.Whoami, unkey.whoami, "read_key"),
        ("keys.updateCredits", bodies.UpdateCredits, unkey.update_credits, "update_key"),
        ("apis.listKeys", bodies.ListKeys, unkey.list_keys, "read_key"),
        ("identities.createIdentity", bodies.CreateIdentity, unkey.create_identity, "create_identity"),
        ("identities.getIdentity", bodies.GetIdentity, unkey.get_identity, "read_identity"),
        ("identities.listIdentities", bodies.ListIdentities, unkey.list_identities, "read_identity"),
        ("identities.updateIdentity", bodies.UpdateIdentity, unkey.update_identity, "update_identity"),
        ("identities.deleteIdentity", bodies.GetIdentity, unkey.delete_identity, "delete_identity"),
    ]
    api = [web.post(f"/v2/{name}", http.endpoint(name, body, run, right)) for name, body, run, right in endpoints]
    return [*api, *_control(http)]


def _control(http: UnkeyHttp) -> list[web.RouteDef]:
    unkey = http.unkey

    def command(body_type: type[Any], run: Callable[[Any], Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                done = _json(run(msgspec.json.decode(await request.read(), type=body_type)))
            except (msgspec.DecodeError, Refused) as error:
                return _json({"error": str(error)}, 400)
            http.changed("_control")
            return done

        return handle

    def add(trouble: Trouble) -> Any:
        http.troubles.append(trouble)
        return {"troubles": http.troubles}

    def set_root(root: _Root) -> Any:
        unkey.permissions = frozenset(root.permissions)
        return {"permissions": sorted(unkey.permissions)}

    def add_key(given: _FixtureKey) -> Any:
        fields = msgspec.structs.asdict(given)
        return {"keyId": unkey.add_key(fields.pop("key"), api_id=min(unkey.apis), **fields).key_id}

    async def waiting(_: web.Request) -> web.Response:
        return _json({"troubles": http.troubles})

    async def clear(_: web.Request) -> web.Response:
        http.troubles.clear()
        unkey.permissions = ALL_PERMISSIONS
        return _json({"troubles": []})

    async def calls(_: web.Request) -> web.Response:
        return _json({"calls": dict(http.calls)})

    async def forget(_: web.Request) -> web.Response:
        http.calls.clear()
        return _json({"calls": {}})

    return [
        web.get("/_control", waiting),
        web.post("/_control", command(Trouble, add)),
        web.delete("/_control", clear),
        web.post("/_control/root", command(_Root, set_root)),
        web.post("/_control/keys", command(_FixtureKey, add_key)),
        web.post(
            "/_control/revoke", command(_Revoked, lambda it: unkey.delete_key(bodies.DeleteKey(key_id=it.key_id)))
        ),
        web.get("/_control/calls", calls),
        web.delete("/_control/calls", forget),
    ]
