"""Every setting with its effective value and its source. No secret is shown."""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from gateway.config.dsn import read_dsn
from gateway.config.problems import names, source
from gateway.config.redis_url import read_redis_url
from gateway.config.secret_table import variable
from gateway.config.settings import Settings


class ShownSetting(NamedTuple):
    """One setting."""

    name: str
    variable: str
    value: str | None
    """As text; of a secret only whether it is set."""
    source: str
    """`default`, `environment`, the variable that names a secret's file, or the path of GATEWAY_CONFIG."""


def list_settings(
    settings: Settings, environ: Mapping[str, str], given: Mapping[str, Any], path: str | None
) -> list[ShownSetting]:
    """Every setting, in the order of the example file."""
    return [
        ShownSetting(name, variable(name), _text(_value(settings, name)), source(name, environ, given, path))
        for name in names()
    ]


def _value(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _text(value: Any) -> str | None:
    if isinstance(value, SecretStr):
        return _secret(value.get_secret_value())
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or None
    if isinstance(value, str):
        return _without_login(value)
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _without_login(text: str) -> str:
    """A URL may hold a user name and a password: what stands between `://` and the last `@` is not shown."""
    scheme, mark, rest = text.partition("://")
    return f"{scheme}://(login hidden)@{rest.rpartition('@')[2]}" if mark and "@" in rest else text


def _secret(secret: str) -> str:
    """`set`; of a connection string also where it leads, so that two environments can be distinguished."""
    for read in (read_dsn, read_redis_url):
        with contextlib.suppress(ValueError):
            return f"set: {read(secret).shown}"
    try:
        parts = urlsplit(secret)
        if parts.scheme and parts.hostname:
            port = "" if parts.port is None else f":{parts.port}"
            return f"set: {parts.scheme}://{parts.hostname}{port}{parts.path}"
    except ValueError:
        return "set"
    return "set"
