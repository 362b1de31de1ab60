"""DATABASE_URL: how to connect to PostgreSQL, and whether it leads to a transaction pooler. Pure.

Supabase's pooler listens on port 6543; any other PgBouncer is told by `?pgbouncer=true` (as Supabase's and Prisma's
own strings say it), which PostgreSQL itself does not know.
"""

from typing import Any, Final, NamedTuple
from urllib.parse import quote

from gateway.config.connection_string import Host, Parts, check_options, one_of, switch, take_apart, whole_number

SCHEMES: Final = ("postgresql", "postgres")
SUPABASE_POOLER_PORT: Final = 6543
PASSED_ON: Final = frozenset(
    {
        *("host", "port", "dbname", "database", "user", "password", "passfile", "service", "options"),
        *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("target_session_attrs", "krbsrvname", "gsslib"),
    }
)
"""What asyncpg knows (its connect_utils.py), and `options`, which the server takes at the start of a session."""
OURS: Final = frozenset({"pgbouncer", "connect_timeout", "gssencmode", "sslaccept"})
DROPPED: Final = frozenset(
    {
        # libpq's (its manual, "Parameter Key Words"): what the gateway sets itself, or asyncpg does without.
        *("application_name", "fallback_application_name", "client_encoding", "channel_binding"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        *("sslcompression", "sslsni", "sslcertmode", "gssdelegation", "load_balance_hosts"),
        # Prisma's (its manual, "PostgreSQL: connection URL"), and what Vercel and node-postgres add.
        *("schema", "connection_limit", "pool_timeout", "socket_timeout", "statement_cache_size"),
        *("single_use_connections", "supa", "workaround", "uselibpqcompat"),
    }
)
"""What others need in the same string and the gateway does not."""
SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SESSIONS: Final = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")
TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


class Dsn(NamedTuple):
    """Where to connect, and how."""

    url: str
    """For asyncpg: only what it knows, every part escaped."""
    pooled: bool
    """Whether sessions are shared between clients: no prepared statements, no session settings."""
    shown: str
    """Hosts and database, for people; nothing else."""
    connect_timeout_s: int | None = None
    system_roots: bool = False
    """Whether the system's own certificates are to be trusted, as libpq's `sslrootcert=system` asks for."""
    dropped: tuple[str, ...] = ()
    """Options that have no effect."""

    files: tuple[tuple[str, str], ...] = ()
    """Certificates and keys: option and path."""

    @property
    def tls(self) -> dict[str, Any]:
        """What asyncpg takes beside the URL."""
        return {"ssl": True} if self.system_roots else {}


def read_dsn(text: str) -> Dsn:
    """Raises ValueError with what would be right, without any part of the text but names of options."""
    parts = take_apart(text)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"it must begin with {' or '.join(f'{each}://' for each in SCHEMES)}")
    options = parts.options
    check_options(options, PASSED_ON | OURS | DROPPED, ("password", "sslpassword"))
    _check_values(options)
    said = switch(options, "pgbouncer")
    kept = {name: value for name, value in options.items() if name in PASSED_ON and value}
    system_roots = kept.get("sslrootcert") == "system"
    if system_roots:
        # libpq holds to verify-full then, and so does asyncpg's ssl=True.
        one_of(kept, "sslmode", ("verify-full",))
        kept = {name: value for name, value in kept.items() if name not in ("sslrootcert", "sslmode")}
    if len(parts.hosts) > 1 or "," in options.get("host", ""):
        # One of them takes writes: without this asyncpg would stay with the first that answers.
        kept.setdefault("target_session_attrs", "primary")
    return Dsn(
        _url(parts, kept),
        SUPABASE_POOLER_PORT in _ports(parts) if said is None else said,
        f"postgresql://{','.join(map(_redact, parts.hosts))}/{quote(parts.path)}",
        whole_number(options.get("connect_timeout"), "connect_timeout")
        or None,  # libpq: 0 is without a bound; here it is the default
        system_roots,
        tuple(sorted(name for name in options if name in DROPPED | {"gssencmode", "sslaccept"})),
        tuple((name, kept[name]) for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl") if name in kept),
    )


def _check_values(options: dict[str, str]) -> None:
    one_of(options, "sslmode", SSL_MODES)
    one_of(options, "target_session_attrs", SESSIONS)
    one_of(options, "sslnegotiation", ("postgres", "direct"))
    one_of(options, "gsslib", ("gssapi", "sspi"))
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        one_of(options, name, TLS_VERSIONS)
    # What asks for more safety than there would be is not dropped.
    one_of(options, "gssencmode", ("disable", "prefer"))
    one_of(options, "sslaccept", ("accept_invalid_certs",))
    for port in options.get("port", "1").split(","):
        whole_number(port, "port")


def _ports(parts: Parts) -> set[int | None]:
    said = parts.options.get("port")
    return {whole_number(each, "port") for each in said.split(",")} if said else {host.port for host in parts.hosts}


def _url(parts: Parts, options: dict[str, str]) -> str:
    login = quote(parts.user or "", safe="") + (f":{quote(parts.password, safe='')}" if parts.password else "")
    hosts = ",".join(map(_format_address, parts.hosts))
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
    return (
        f"postgresql://{login}{'@' if login else ''}{hosts}/{quote(parts.path, safe='')}{'?' if query else ''}{query}"
    )


def _format_address(host: Host) -> str:
    name = f"[{quote(host.name, safe=':')}]" if ":" in host.name else quote(host.name, safe="")
    return name if host.port is None else f"{name}:{host.port}"


def _redact(host: Host) -> str:
    return host.name if host.name.startswith("/") else _format_address(host)
