"""Connections to Redis or Valkey. Must not hold one at module level; the opener of a client closes it.

A connection may work and yet be wrong: after a failover that cuts nobody off it still leads to the old master, which
is a replica now and refuses every write. redis-py would keep it for ever. Here the first such answer makes the whole
pool connect anew, by DNS and whatever proxy there is, or to whom Sentinels name as the master by now.
"""

import ssl
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff

from gateway.config.files import check_files
from gateway.config.redis_url import RedisUrl, read_redis_url
from gateway.kit.errors import ConfigError, DependencyDown, DependencyFull
from gateway.kit.sockets import TCP_OPTIONS

WRONG_SERVER: Final = (
    exceptions.ReadOnlyError,  # a replica: it was demoted, or the address has led to one
    exceptions.MasterDownError,  # a replica that has lost its master
    exceptions.BusyLoadingError,  # it was started anew and is not ready; another may have taken over
    exceptions.ConnectionError,  # it broke off
    exceptions.TimeoutError,  # it is silent
)
"""After these, every other connection of the pool is likely to lead to the same place."""
SENTINEL_TIMEOUT_S: Final = 1.0
"""Seconds that one Sentinel has before the next one is asked: they answer from memory, and one may be dead."""
DEMOTED: Final = "UNBLOCKED"
"""How an answer begins to a read that waited while the server became a replica; redis-py has no class for it."""


class _Watched:
    """A connection that tells its pool what it has heard."""

    pool: "Pool"
    generation = 0
    host: str
    port: int

    async def connect(self) -> None:
        """Behind Sentinels, to the current master: they are asked each time."""
        if not self.is_connected and self.pool.sentinels is not None:  # type: ignore[attr-defined]  # as below
            self.host, self.port = await self.pool.find_master(self.pool.sentinels)
        await super().connect()  # type: ignore[misc]  # of what it is mixed into

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)  # type: ignore[misc]  # of what it is mixed into
        except WRONG_SERVER:
            self.pool.leave(self)
            raise
        except exceptions.ResponseError as error:
            if str(error).startswith(DEMOTED):
                self.pool.leave(self)
            raise


class _Tcp(_Watched, Connection):
    pass


class _Tls(_Watched, SSLConnection):
    async def connect(self) -> None:
        """A certificate that does not verify stays so: it is refused like a wrong password, not waited for."""
        try:
            await super().connect()
        except exceptions.ConnectionError as error:
            cause = error.__context__
            if isinstance(cause, ssl.SSLCertVerificationError):
                says = f"the certificate of {self.host}:{self.port} is not trusted: {cause.verify_message}"
                raise exceptions.AuthenticationError(says) from error
            raise


class _Unix(_Watched, UnixDomainSocketConnection):
    pass


_KINDS: Final[dict[str, type[Any]]] = {"tcp": _Tcp, "tls": _Tls, "unix": _Unix}


class Pool(ConnectionPool):
    """Connections of one generation; `leave` begins the next one."""

    def __init__(
        self, connection_class: type[Any], *, sentinels: Sentinel | None, service: str, **options: Any
    ) -> None:
        """`sentinels`: who knows where the `service` is; None where the options say it."""
        super().__init__(connection_class, **options)
        self.sentinels: Final = sentinels
        self._service: Final = service
        self._generation = 1

    async def find_master(self, sentinels: Sentinel) -> tuple[str, int]:
        """Its host and port, by the first Sentinel that answers and holds it for alive. Raises as a connection does."""
        try:
            host, port = await sentinels.discover_master(self._service)
        except MasterNotFoundError as error:
            # It has only the text of what each said, with more about our connections than belongs in a log.
            if exceptions.AuthenticationError.__name__ in str(error):
                says = "the Sentinels refuse the login: correct sentinel_username and sentinel_password"
                raise exceptions.AuthenticationError(says) from None
            says = f"none of {len(sentinels.sentinels)} Sentinel(s) names a master {self._service} that is alive"
            raise exceptions.ConnectionError(says) from None
        return str(host), int(port)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        for each in () if self.sentinels is None else self.sentinels.sentinels:
            await each.connection_pool.disconnect()

    def make_connection(self) -> Any:
        connection = super().make_connection()  # type: ignore[no-untyped-call]
        connection.pool = self
        return connection

    async def ensure_connection(self, connection: Any) -> None:
        if connection.generation != self._generation:
            await connection.disconnect(nowait=True)
            connection.generation = self._generation
        await super().ensure_connection(connection)

    def leave(self, connection: Any) -> None:
        """Has every connection made anew before it is used again. What an older one hears has been acted on."""
        if connection.generation == self._generation:
            self._generation += 1


def open_redis(url: str, *, variable: str = "REDIS_URL", timeout_s: float = 5.0, connections_max: int = 16) -> Redis:
    """A client that gives every command `timeout_s` seconds. Connects on first use; `aclose()` it at the end.
    Raises ConfigError, which names `variable`, where a certificate cannot be read.

    Nothing is tried again in here: a timed-out XADD may have been carried out, and whoever sent it decides.
    """
    found = read_redis_url(url)
    check_files(variable, found.files)
    # A Unix socket's connection knows no such options.
    kept = {} if found.kind == "unix" else {"socket_keepalive": True, "socket_keepalive_options": TCP_OPTIONS}
    pool = Pool(
        _KINDS[found.kind],
        sentinels=_sentinels(found) if found.sentinels else None,
        service=found.service,
        **found.options,
        **kept,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=connections_max,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
        protocol=2,
    )
    return Redis.from_pool(pool)


async def check_server(redis: Redis, variable: str, keeps: str) -> None:
    """Raises ConfigError, which names `variable`, when this server may throw `keeps` away to save memory, or is a node
    of a cluster: a script's keys would lie on several. What goes wrong on the way is redis-py's."""
    memory = await redis.info("memory")
    policy = str(memory.get("maxmemory_policy", "unknown"))
    if policy != "noeviction":
        raise ConfigError(
            f"Redis has maxmemory-policy {policy!r} and may silently drop {keeps}; "
            f"set `maxmemory-policy noeviction` on the server behind {variable}"
        )
    cluster = await redis.info("cluster")
    if int(cluster.get("cluster_enabled", 0)):
        raise ConfigError(
            "Redis is a node of a Redis Cluster (cluster_enabled), which cannot hold the stream and the limits; "
            f"name a single server in {variable}"
        )


def describe_outage(what: str, error: BaseException, detail: str) -> DependencyDown:
    """What a failure of redis-py is to the rest of the gateway; `what` names the server."""
    return (DependencyFull if isinstance(error, exceptions.OutOfMemoryError) else DependencyDown)(what, detail)


def _sentinels(found: RedisUrl) -> Sentinel:
    options: dict[str, Any] = {
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "protocol": 2,
    }
    options |= {**found.sentinel_login, "retry": Retry(NoBackoff(), 0)}
    return Sentinel(found.sentinels, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
