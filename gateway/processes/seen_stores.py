"""Which stores a data folder has served with, so that `serve` can start while they are away.

A gateway that runs survives their absence, and one that takes its place must too: a host that restarts during an outage
would refuse calls that it could take. What is checked at a start (migrations, the kind of database, Redis's policy) was
checked then; all of it is checked again once they are there.
"""

from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.config.dsn import read_dsn
from gateway.config.redis_url import read_redis_url
from gateway.config.settings import Settings, require_values
from gateway.processes.marks import real_vendors
from gateway.stores import migrator

NAME: Final = "stores_seen.json"
_log: Final = structlog.get_logger("gateway.serve")


class SeenStores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What passed the checks of a start. No logins: only where the stores are."""

    database: str
    redis: str
    limits_redis: str | None
    schema: str
    """The newest migration of the gateway that checked; the database had all up to it."""
    real_vendors: list[str]
    """Those that are no stand-ins: they decide which database may be used."""


def is_known(settings: Settings) -> bool:
    """Whether these very stores, with all migrations of this version, have been seen from this folder."""
    wanted = _describe(settings)
    try:
        seen = msgspec.json.decode(_path(settings).read_bytes(), type=SeenStores)
    except (OSError, msgspec.DecodeError):  # never written, or by another version: then they are waited for
        return False
    # Migrations keep the version before them working, so a database that has more is as good.
    return seen.schema >= wanted.schema and msgspec.structs.replace(seen, schema=wanted.schema) == wanted


def remember(settings: Settings) -> None:
    """These stores have passed the checks."""
    path = _path(settings)
    draft = path.with_suffix(".new")
    try:
        draft.write_bytes(msgspec.json.encode(_describe(settings)))
        draft.replace(path)
    except OSError as error:  # `serve` starts on a full disk too
        _log.warning("stores are not remembered: the next start waits for them", detail=error.strerror)


def _describe(settings: Settings) -> SeenStores:
    values = require_values(settings, "database_url", "redis_url")
    limits = settings.limits_redis_url
    return SeenStores(
        read_dsn(values["database_url"]).shown,
        read_redis_url(values["redis_url"]).shown,
        None if limits is None else read_redis_url(limits.get_secret_value()).shown,
        migrator.load()[-1].version,
        sorted(real_vendors(settings)),
    )


def _path(settings: Settings) -> Path:
    return settings.gateway_data_dir / NAME
