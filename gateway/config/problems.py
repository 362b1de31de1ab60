"""Explains what is wrong with a configuration: which setting, where it was set, and what is
allowed. Pure. Never a value: it may be a secret.
"""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from gateway.config.dsn import read_dsn
from gateway.config.redis_url import read_redis_url
from gateway.config.secret_table import NEEDED_BY, file_variable, variable
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError

PREFIX: Final = "GATEWAY_"
CLOSE: Final = 0.75
"""How alike two names must be (0 to 1) for one to be taken for a slip of the other."""


def names() -> list[str]:
    """Every setting: `gateway_port`, `keys.fresh_s`, …"""
    found = []
    for name, field in Settings.model_fields.items():
        inner = field.default
        found += [f"{name}.{each}" for each in type(inner).model_fields] if isinstance(inner, BaseModel) else [name]
    return found


def read_toml(path: str, data: bytes) -> dict[str, Any]:
    """The file GATEWAY_CONFIG names. Raises ConfigError with line and column when it is not TOML."""
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"GATEWAY_CONFIG: {path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        # It says what was expected and where; the values themselves are not in it.
        raise ConfigError(f"GATEWAY_CONFIG: {path} is not TOML: {error}") from None


def is_given(name: str, given: Mapping[str, Any]) -> bool:
    """Whether the file sets this setting."""
    section, _, field = name.rpartition(".")
    inside = given.get(section) if section else given
    return isinstance(inside, Mapping) and (field or name) in inside


def source(name: str, environ: Mapping[str, str], given: Mapping[str, Any], path: str | None) -> str:
    """Where a setting comes from: `environment`, the variable that names a secret's file, the path of GATEWAY_CONFIG,
    or `default`.
    """
    if environ.get(variable(name)):
        return "environment"
    if name in NEEDED_BY and environ.get(file_variable(name)):
        return file_variable(name)
    return path or "default" if is_given(name, given) else "default"


def problems(
    error: ValidationError, environ: Mapping[str, str], given: Mapping[str, Any], path: str | None
) -> list[str]:
    """One line for each mistake."""
    return [_problem(item["loc"], item["type"], item["msg"], environ, given, path) for item in error.errors()]


def _problem(
    loc: tuple[int | str, ...],
    kind: str,
    message: str,
    environ: Mapping[str, str],
    given: Mapping[str, Any],
    path: str | None,
) -> str:
    name = ".".join(part for part in loc if isinstance(part, str))  # without the place in a list
    if not name:
        return message.removeprefix("Value error, ")
    where = source(name, environ, given, path)
    by_file = where == file_variable(name)
    shown = where if by_file else variable(name) if where == "environment" else name
    place = f" (in {where})" if where not in ("environment", "default") and not by_file else ""
    if kind == "model_type":
        return f"{shown}{place}: it must be a table, [{name}]"
    if kind == "extra_forbidden":
        return f"{shown}{place}: there is no such setting{_suggestion(name, where)}"
    return f"{shown}{place}: {message.removeprefix('Value error, ')}"


def _suggestion(name: str, where: str) -> str:
    # The right name in the wrong section, or without one; else a slip.
    close = [each for each in names() if each.rpartition(".")[2] == name.rpartition(".")[2]]
    close = close or get_close_matches(name, names(), 1, CLOSE)
    if not close:
        return ""
    return f"; did you mean {variable(close[0]) if where == 'environment' else close[0]}?"


def find_misspelled(environ: Mapping[str, str]) -> list[str]:
    """Variables that are ours but for a slip. Others that begin with GATEWAY_ may be anybody's (an orchestrator's)."""
    known = {variable(name) for name in names()} | {file_variable(name) for name in NEEDED_BY} | {"GATEWAY_CONFIG"}
    tails = [name.removeprefix(PREFIX) for name in known if name.startswith(PREFIX)]
    found = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            close = get_close_matches(name.removeprefix(PREFIX), tails, 1, CLOSE)
            found += [f"{name}: there is no such setting; did you mean {PREFIX}{each}?" for each in close]
    return found


def bare_sections(environ: Mapping[str, str]) -> list[str]:
    """Variables with the name of a section, which are ignored: they are probably another program's."""
    sections = {name.partition(".")[0].upper(): name for name in reversed(names()) if "." in name}
    return [
        f"{section}: ignored; the settings of this section are {variable(first)} and so on"
        for section, first in sorted(sections.items())
        if environ.get(section)
    ]


def without_effect(settings: Settings) -> list[str]:
    """Options of connection strings that others understand and the gateway does not need, a line for each setting."""
    found = []
    if settings.database_url is not None:
        found.append(("DATABASE_URL", read_dsn(settings.database_url.get_secret_value()).dropped))
    for name in ("redis_url", "limits_redis_url"):
        redis = getattr(settings, name)
        if redis is not None:
            found.append((name.upper(), read_redis_url(redis.get_secret_value()).dropped))
    return [f"{name}: without effect here: {', '.join(dropped)}" for name, dropped in found if dropped]
