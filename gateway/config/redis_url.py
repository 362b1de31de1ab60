"""REDIS_URL: how to connect to Redis or Valkey. Pure."""

import re
from typing import Any, Final, Literal, NamedTuple

from gateway.config.connection_string import Parts, check_options, one_of, switch, take_apart, whole_number

Kind = Literal["tcp", "tls", "unix"]
SCHEMES: Final[dict[str, Kind]] = {"redis": "tcp", "rediss": "tls", "unix": "unix"}
SENTINEL_SCHEMES: Final[dict[str, Kind]] = {"redis+sentinel": "tcp", "rediss+sentinel": "tls"}
SENTINEL_PORT: Final = 26379
SENTINEL: Final = frozenset({"service", "sentinel_username", "sentinel_password"})
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]+")
"""What Sentinel itself takes for a name."""
LOGIN: Final = frozenset({"db", "username", "password"})
TLS_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_ciphers")
TLS: Final = frozenset({*TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname"})
"""What redis-py's TLS connection knows (redis/asyncio/connection.py)."""
DROPPED: Final = frozenset(
    {
        *("timeout", "socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
        *("retry_on_timeout", "retry_on_error", "health_check_interval", "max_connections", "protocol"),
        *("client_name", "lib_name", "lib_version", "encoding", "encoding_errors", "decode_responses"),
        *("single_connection_client", "legacy_responses", "family"),
    }
)
"""What other clients take from the same string, and the gateway sets itself."""
CLUSTER: Final = ("redis+cluster", "rediss+cluster", "redis-cluster")
"""How other clients write the address of a Redis Cluster."""


class RedisUrl(NamedTuple):
    """Where to connect, and how."""

    kind: Literal["tcp", "tls", "unix"]
    options: dict[str, Any]
    """As redis-py's connections take them."""
    shown: str
    """Host, port and database, for people; nothing else."""
    dropped: tuple[str, ...] = ()
    """Options that have no effect."""
    sentinels: tuple[tuple[str, int], ...] = ()
    """Where Sentinels listen: they name the master's host and port, which `options` has not then."""
    service: str = ""
    """What the Sentinels call it."""
    sentinel_login: dict[str, Any] = {}  # noqa: RUF012  # of a NamedTuple, never changed
    """The login of the Sentinels themselves, and how to verify them."""

    @property
    def files(self) -> dict[str, str]:
        """Certificates and keys: option and path."""
        return {
            name: self.options[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in self.options
        }


def read_redis_url(text: str) -> RedisUrl:
    """Raises ValueError with what would be right, without any part of the text but names of options."""
    parts = take_apart(text)
    if parts.scheme in SENTINEL_SCHEMES:
        return _behind_sentinels(parts, SENTINEL_SCHEMES[parts.scheme])
    kind = SCHEMES.get(parts.scheme)
    if parts.scheme in CLUSTER:
        raise ValueError("a Redis Cluster cannot hold the limits: name a single server, its master")
    if kind is None:
        raise ValueError(f"it must begin with {' or '.join(f'{each}://' for each in (*SCHEMES, *SENTINEL_SCHEMES))}")
    _check_options(parts, kind, LOGIN | TLS | DROPPED)
    if len(parts.hosts) > 1:
        raise ValueError(
            "several hosts: name the one address at which the master is, or Sentinels as "
            "redis+sentinel://h1,h2/SERVICE/0; a Redis Cluster cannot hold the limits"
        )
    options = _login(parts, "" if kind == "unix" else parts.path.strip("/")) | _tls(parts.options)
    if kind == "unix":
        if parts.hosts or not parts.path:
            raise ValueError("it must be unix:// and the absolute path of the socket, as unix:///run/redis.sock?db=0")
        options["path"] = f"/{parts.path}"
        shown = f"unix:///{parts.path}"
    else:
        (host,) = parts.hosts or (None,)
        options |= {"host": host.name if host else "localhost", "port": (host and host.port) or 6379}
        shown = f"{parts.scheme}://{options['host']}:{options['port']}/{options['db']}"
    return RedisUrl(kind, options, shown, tuple(sorted(DROPPED & parts.options.keys())))


def _behind_sentinels(parts: Parts, kind: Kind) -> RedisUrl:
    """`redis+sentinel://USER:PASSWORD@h1:26379,h2/SERVICE/DB`; the login is the master's."""
    _check_options(parts, kind, LOGIN | TLS | DROPPED | SENTINEL)
    if not parts.hosts:
        raise ValueError("name the Sentinels, as redis+sentinel://h1:26379,h2:26379/SERVICE/0")
    said = parts.options.get("service")
    first, _, rest = parts.path.strip("/").partition("/")
    service, in_path = (first, rest) if said is None else (said, parts.path.strip("/"))
    if not _SERVICE.fullmatch(service) or (said is None and service.isdigit()):  # a number is the database
        raise ValueError("name what the Sentinels call the master, as redis+sentinel://h1,h2/SERVICE/0")
    options = _login(parts, in_path) | _tls(parts.options)
    sentinels = tuple((host.name, host.port or SENTINEL_PORT) for host in parts.hosts)
    hosts = ",".join(f"{name}:{port}" for name, port in sentinels)
    login = {name: parts.options.get(f"sentinel_{name}") for name in ("username", "password")}
    return RedisUrl(
        kind,
        options,
        f"{parts.scheme}://{hosts}/{service}/{options['db']}",
        tuple(sorted(DROPPED & parts.options.keys())),
        sentinels,
        service,
        {**login, **_tls(parts.options), "ssl": kind == "tls"},
    )


def _check_options(parts: Parts, kind: str, known: frozenset[str]) -> None:
    check_options(parts.options, known, ("password", "ssl_password", "sentinel_password"))
    if kind != "tls" and (asked := sorted(TLS & parts.options.keys())):
        raise ValueError(f"{', '.join(asked)}: only with rediss://")


def _login(parts: Parts, in_path: str) -> dict[str, Any]:
    said = whole_number(parts.options.get("db"), "db")
    after_slash = whole_number(in_path, "the database after the slash") if in_path else None
    if said is not None and after_slash is not None and said != after_slash:
        raise ValueError("it names two databases, after the slash and as db: keep one")
    db = after_slash if said is None else said
    found = {"db": db or 0, "username": parts.user, "password": parts.password}
    return found | {name: parts.options[name] for name in ("username", "password") if parts.options.get(name)}


def _tls(options: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: options[name] for name in TLS_FILES if options.get(name)}
    if "ssl_cert_reqs" in options:
        asked = options["ssl_cert_reqs"].lower().removeprefix("cert_")
        one_of({"ssl_cert_reqs": asked}, "ssl_cert_reqs", ("none", "optional", "required"))
        found["ssl_cert_reqs"] = asked
    if (checks := switch(options, "ssl_check_hostname")) is not None:
        found["ssl_check_hostname"] = checks
    return found
