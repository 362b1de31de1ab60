"""All that the Unkey stand-in answers: its API (http.py), and the control calls of tests under `/_control`.

GET    /_control          the troubles that wait
POST   /_control          adds one: a JSON object with the fields of `UnkeyTrouble`; unknown ones are 400
DELETE /_control          no trouble, `Mode` as at first, and all permissions for the root key
POST   /_control/mode     how the server behaves: the fields of `Mode`; what is not named is as at first
POST   /_control/clock    {"seconds": 60}: the server's clock goes forward
POST   /_control/roles    {"name", "permissions": […]}: a role, made or changed
POST   /_control/root     {"permissions": ["verify_key", …]}: what the root key may do from now on
POST   /_control/keys     {"key", "external_id"?, "key_id"?, "expires"?, "enabled"?, …}: a key of this text
POST   /_control/change   the body of keys.updateKey: somebody changes a key in the dashboard, which clears no node
POST   /_control/revoke   {"key_id"}: somebody deletes a key in the dashboard
GET    /_control/calls    {"calls": {"keys.verifyKey": 3, …}}: requests by endpoint, refused ones too
DELETE /_control/calls    counts from 0 again
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from aiohttp import web

from gateway.sandbox.unkey import bodies
from gateway.sandbox.unkey.forms import UnkeyError
from gateway.sandbox.unkey.http import UnkeyHttp, UnkeyTrouble, api_routes, as_json
from gateway.sandbox.unkey.keys import NamedLimit, UnkeyState
from gateway.sandbox.unkey.nodes import Mode
from gateway.sandbox.unkey.service import ALL_PERMISSIONS, Unkey


class _FixtureKey(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    external_id: str | None = None
    key_id: str | None = None
    expires: int | None = None
    enabled: bool = True
    remaining: int | None = None
    meta: dict[str, Any] | None = None
    permissions: list[str] = []
    roles: list[str] = []
    ratelimits: list[NamedLimit] = []


class _Role(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    permissions: list[str]


class _Ahead(msgspec.Struct, forbid_unknown_fields=True):
    seconds: Annotated[float, msgspec.Meta(ge=0)]


class _Root(msgspec.Struct, forbid_unknown_fields=True):
    permissions: list[str]


class _Revoked(msgspec.Struct, forbid_unknown_fields=True):
    key_id: str


def routes(unkey: Unkey, save: Callable[[UnkeyState], None]) -> list[web.RouteDef]:
    """Everything that the stand-in answers, relative to its prefix; `save` is called after every change."""
    http = UnkeyHttp(unkey, save)
    return [*api_routes(http), *_of_troubles(http), *_of_state(http)]


def _command(http: UnkeyHttp, path: str, body_type: type[Any], run: Callable[[Any], Any]) -> web.RouteDef:
    """A control call that changes something; `run` gives what is answered."""

    async def handle(request: web.Request) -> web.Response:
        try:
            done = as_json(run(msgspec.json.decode(await request.read(), type=body_type)))
        except (msgspec.DecodeError, UnkeyError) as error:
            return as_json({"error": str(error)}, 400)
        http.save_changes("_control")
        return done

    return web.post(f"/_control{path}", handle)


def _of_troubles(http: UnkeyHttp) -> list[web.RouteDef]:
    unkey = http.unkey

    def add(trouble: UnkeyTrouble) -> Any:
        http.troubles.append(trouble)
        return {"troubles": http.troubles}

    async def waiting(_: web.Request) -> web.Response:
        return as_json({"troubles": http.troubles})

    async def clear(_: web.Request) -> web.Response:
        http.troubles.clear()
        unkey.permissions = ALL_PERMISSIONS
        unkey.mode = Mode()
        return as_json({"troubles": []})

    async def calls(_: web.Request) -> web.Response:
        return as_json({"calls": dict(http.calls)})

    async def forget(_: web.Request) -> web.Response:
        http.calls.clear()
        return as_json({"calls": {}})

    return [
        web.get("/_control", waiting),
        _command(http, "", UnkeyTrouble, add),
        web.delete("/_control", clear),
        web.get("/_control/calls", calls),
        web.delete("/_control/calls", forget),
    ]


def _of_state(http: UnkeyHttp) -> list[web.RouteDef]:
    unkey = http.unkey

    def set_root(root: _Root) -> Any:
        unkey.permissions = frozenset(root.permissions)
        return {"permissions": sorted(unkey.permissions)}

    def add_key(given: _FixtureKey) -> Any:
        fields = msgspec.structs.asdict(given)
        return {"keyId": unkey.add_key(fields.pop("key"), api_id=min(unkey.apis), **fields).key_id}

    def set_mode(mode: Mode) -> Any:
        unkey.mode = mode
        return {"mode": mode}

    def go_ahead(by: _Ahead) -> Any:
        unkey.ahead_s += by.seconds
        return {"now_s": unkey.now_s()}

    def set_role(role: _Role) -> Any:
        unkey.kept.roles[role.name] = role.permissions
        return {"roles": unkey.kept.roles}

    def change(given: bodies.UpdateKey) -> Any:
        return unkey.update_key(given, in_dashboard=True)

    def delete(revoked: _Revoked) -> Any:
        return unkey.delete_key(bodies.DeleteKey(key_id=revoked.key_id), in_dashboard=True)

    return [
        _command(http, "/root", _Root, set_root),
        _command(http, "/keys", _FixtureKey, add_key),
        _command(http, "/mode", Mode, set_mode),
        _command(http, "/clock", _Ahead, go_ahead),
        _command(http, "/roles", _Role, set_role),
        _command(http, "/change", bodies.UpdateKey, change),
        _command(http, "/revoke", _Revoked, delete),
    ]
