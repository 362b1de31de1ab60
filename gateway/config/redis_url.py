"""REDIS_URL: how to connect to Redis or Valkey. Pure."""

from typing import Any, Final, Literal, NamedTuple

from gateway.config.connection_string import Parts, check_options, one_of, switch, take_apart, whole_number

SCHEMES: Final[dict[str, Literal["tcp", "tls", "unix"]]] = {"redis": "tcp", "rediss": "tls", "unix": "unix"}
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

    @property
    def files(self) -> dict[str, str]:
        """Certificates and keys: option and path."""
        return {
            name: self.options[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in self.options
        }


def read_redis_url(text: str) -> RedisUrl:
    """Raises ValueError with what would be right, without any part of the text but names of options."""
    parts = take_apart(text)
    kind = SCHEMES.get(parts.scheme)
    if parts.scheme in CLUSTER:
        raise ValueError("a Redis Cluster cannot hold the limits: name a single server, its master")
    if kind is None:
        raise ValueError(f"it must begin with {' or '.join(f'{each}://' for each in SCHEMES)}")
    check_options(parts.options, LOGIN | TLS | DROPPED, ("password", "ssl_password"))
    if kind != "tls" and (asked := sorted(TLS & parts.options.keys())):
        raise ValueError(f"{', '.join(asked)}: only with rediss://")
    if len(parts.hosts) > 1:
        raise ValueError(
            "several hosts: name the one address at which the master is; a Redis Cluster cannot hold the limits"
        )
    options = _login(parts, kind) | _tls(parts.options)
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


def _login(parts: Parts, kind: str) -> dict[str, Any]:
    in_path = "" if kind == "unix" else parts.path.strip("/")
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
