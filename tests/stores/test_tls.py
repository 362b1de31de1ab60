"""TLS to the stores: a server that proves who it is may be used, another one is refused with its reason.

PostgreSQL and Valkey are real and hear what a relay has taken out of TLS (tests/support/tls_relay.py says why).
"""

import re
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from redis.exceptions import NoPermissionError

from gateway.access.good_keys import GoodKeys
from gateway.accounts.opening import open_key_changes
from gateway.config.key_ring import entry_of
from gateway.config.settings import Settings
from gateway.kit.errors import DependencyDown, DependencyRefused
from gateway.ledger.opening import open_buffer
from gateway.limits.claims import Slots
from gateway.limits.opening import open_limits
from gateway.processes.good_keys import open_good_keys
from gateway.processes.redis_memory import open_walks
from gateway.stores.migrator import migrate
from gateway.stores.opening import open_process_pool
from gateway.stores.postgres import open_pool
from gateway.stores.redis import open_redis
from tests.support.certificates import LOOPBACK, Authority
from tests.support.source import TOP
from tests.support.tls_postgres import PROGRAMS, serve_tls_postgres
from tests.support.tls_relay import TlsRelay

PASSWORD: Final = f"Xq7-{secrets.token_hex(8)}"
OTHER_NAME: Final = "db.example"
Serve = Callable[[ssl.SSLContext | None], Awaitable[TlsRelay]]


class Trust(NamedTuple):
    """Two authorities: the one that the servers' certificates are of, and another one."""

    ours: Authority
    others: Authority


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    folder = tmp_path_factory.mktemp("certificates")
    return Trust(Authority(folder, "ours"), Authority(folder, "others"))


@pytest.fixture(autouse=True)
def no_certificates_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """asyncpg reads ~/.postgresql/root.crt and PGSSL…, as libpq does."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCRL"):
        monkeypatch.delenv(name, raising=False)


def serve_tls(stack: AsyncExitStack, target: Path, kind: Literal["postgres", "valkey"]) -> Serve:
    async def serve(context: ssl.SSLContext | None) -> TlsRelay:
        return await stack.enter_async_context(TlsRelay(target, context, kind).running())

    return serve


# PostgreSQL


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[Serve]:
    options = parse_qs(urlsplit(database_url).query)
    async with AsyncExitStack() as stack:
        socket = Path(options["host"][0]) / f".s.PGSQL.{options['port'][0]}"
        yield serve_tls(stack, socket, "postgres")


def postgres_url(database_url: str, relay: TlsRelay, host: str = "localhost", **options: str | Path) -> str:
    """The test's database through the relay. The server trusts everybody; the password is there to be looked for."""
    parts = urlsplit(database_url)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://{parts.username}:{PASSWORD}@{host}:{relay.port}{parts.path}?{query}"


async def ask(url: str) -> None:
    """One question through a pool as the processes open it."""
    async with AsyncExitStack() as stack:
        pool = await open_process_pool(stack, Settings.of({"DATABASE_URL": url}), "proxy", 1)
        async with pool.acquire() as connection:
            assert await connection.fetchval("select count(*) from openai_usage") == 0


async def refusal(url: str) -> str:
    """Why PostgreSQL is not to be used, without a secret; it is a matter for somebody, not of waiting."""
    with pytest.raises(DependencyRefused) as caught:
        await open_pool(url)
    said = str(caught.value)
    assert PASSWORD not in said
    return said


@pytest.mark.parametrize("host", LOOPBACK)
async def test_a_verified_postgresql_is_used(postgres: Serve, database_url: str, trust: Trust, host: str) -> None:
    relay = await postgres(trust.ours.sign_server(*LOOPBACK))
    url = postgres_url(database_url, relay, host, sslmode="verify-full", sslrootcert=trust.ours.file)
    await ask(url)
    assert (await migrate(url)).applied == []
    assert relay.encrypted >= 2
    assert relay.plain == 0


async def test_a_postgresql_of_another_authority_is_refused(postgres: Serve, database_url: str, trust: Trust) -> None:
    relay = await postgres(trust.others.sign_server(*LOOPBACK))
    for mode in ("verify-full", "verify-ca", "require"):  # with a CA, `require` asks for it too
        said = await refusal(postgres_url(database_url, relay, sslmode=mode, sslrootcert=trust.ours.file))
        assert "certificate verify failed" in said
    assert relay.encrypted == relay.plain == 0


async def test_a_postgresql_of_another_name_is_refused(postgres: Serve, database_url: str, trust: Trust) -> None:
    relay = await postgres(trust.ours.sign_server(OTHER_NAME))
    said = await refusal(postgres_url(database_url, relay, sslmode="verify-full", sslrootcert=trust.ours.file))
    assert "not valid for 'localhost'" in said
    assert relay.encrypted == relay.plain == 0
    await ask(postgres_url(database_url, relay, sslmode="verify-ca", sslrootcert=trust.ours.file))
    assert relay.encrypted == 1


@pytest.mark.parametrize("mode", ["require", "prefer", ""])
async def test_weaker_modes_encrypt_and_check_nothing(
    postgres: Serve, database_url: str, trust: Trust, mode: str
) -> None:
    relay = await postgres(trust.others.sign_server(OTHER_NAME))
    await ask(postgres_url(database_url, relay, **({"sslmode": mode} if mode else {})))
    assert (relay.encrypted, relay.plain) == (1, 0)


async def test_only_prefer_does_without_tls(postgres: Serve, database_url: str, trust: Trust) -> None:
    relay = await postgres(None)
    await ask(postgres_url(database_url, relay, sslmode="prefer"))
    assert relay.plain == 1
    for mode in ("require", "verify-full"):
        with pytest.raises(DependencyDown, match="rejected SSL upgrade") as caught:
            await open_pool(postgres_url(database_url, relay, sslmode=mode, sslrootcert=trust.ours.file))
        assert PASSWORD not in str(caught.value)
    assert relay.plain == 1


@pytest.fixture(scope="module")
def tls_postgres(trust: Trust) -> Iterator[int]:
    with serve_tls_postgres(trust.ours.write_server(*LOOPBACK), PASSWORD) as running:
        yield running


@pytest.mark.skipif(not PROGRAMS, reason="needs a PostgreSQL that is built with OpenSSL, as Debian's is")
async def test_a_postgresql_that_speaks_tls_itself(tls_postgres: int, trust: Trust) -> None:
    """The same without the relay, and with a password."""
    here = f"localhost:{tls_postgres}/postgres"
    verified = f"{here}?sslmode=verify-full&sslrootcert={trust.ours.file}"
    pool = await open_pool(f"postgresql://gateway:{PASSWORD}@{verified}")
    try:
        for mode in ("require", "prefer"):
            other = await open_pool(f"postgresql://gateway:{PASSWORD}@{here}?sslmode={mode}")
            await other.close()
        assert await pool.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()") is True
    finally:
        await pool.close()
    said = await refusal(f"postgresql://gateway:{PASSWORD}@{here}?sslmode=verify-full&sslrootcert={trust.others.file}")
    assert "certificate verify failed" in said
    assert "no encryption" in await refusal(f"postgresql://gateway:{PASSWORD}@{here}?sslmode=disable")
    assert "password authentication failed" in await refusal(f"postgresql://gateway:{PASSWORD}-not@{verified}")


# Valkey


class Login(NamedTuple):
    """A user of Valkey, and where it may come in."""

    name: str
    serve: Serve

    def url(self, relay: TlsRelay, password: str = PASSWORD, **options: str | Path) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"rediss://{self.name}:{password}@localhost:{relay.port}/0?{query}"


def documented_rules() -> list[str]:
    """What docs/operations.md gives the gateway's user, with this test's password."""
    found = re.search(r"^user gateway (on >PASSWORD .*)$", (TOP / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert found
    return found[1].replace("PASSWORD", PASSWORD).split()


@pytest.fixture
async def valkey(redis_url: str) -> AsyncIterator[Login]:
    name = f"gateway-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_redis(redis_url))
        await redis.execute_command("ACL", "SETUSER", name, *documented_rules())  # type: ignore[no-untyped-call]
        stack.push_async_callback(redis.execute_command, "ACL", "DELUSER", name)
        yield Login(name, serve_tls(stack, Path(unquote(urlsplit(redis_url).path)), "valkey"))


async def test_all_of_the_gateway_s_work_over_tls_with_the_documented_rights(valkey: Login, trust: Trust) -> None:
    relay = await valkey.serve(trust.ours.sign_server(*LOOPBACK))
    url = valkey.url(relay, ssl_ca_certs=trust.ours.file)
    settings = Settings.of({"REDIS_URL": url, "GATEWAY_SECRETS": entry_of("one", bytes(32))})
    async with AsyncExitStack() as stack:
        buffer = open_buffer(stack, settings, url)
        await buffer.ensure_group()
        await buffer.check_policy()
        assert await buffer.try_write() is None
        (added,) = await buffer.append([("1", b"e")])
        (entry,) = await buffer.read("w", 1, 0)
        assert (entry.event_id, entry.raw, entry.distrust) == ("1", b"e", None)
        assert await buffer.waiting([added]) == {added}
        assert await buffer.claim("v", 0, 1) == [entry]
        await buffer.ack([added])
        for writer in ("v", "w"):
            await buffer.forget_consumer(writer)
        assert await buffer.depth() == (0, 0)
        assert (await buffer.state()).entries == 0

        await buffer.set_owners(["resp_1"], "user")
        assert await buffer.get_owners(["resp_1"]) == {"resp_1": "user"}
        await buffer.forget_owners({"resp_1": "user"})

        limits, slots = open_limits(stack, settings), [Slots("limit:k:1:running", 1)]
        assert [taken.refused for taken in await limits.reserve("1", slots)] == [False]
        assert [taken.refused for taken in await limits.reserve("2", slots)] == [True]
        await limits.renew("1", slots)
        await limits.settle("1", slots, tokens=0, cost=0, billed=0)
        assert await limits.windows() == {}

        (walk,) = open_walks(stack, settings, "worker").values()
        assert await walk.is_mine()
        assert (await walk.look()).is_whole

        changes = open_key_changes(stack, url)
        before = await changes.newest()
        entry_id = await changes.publish(["key"], ["user"])
        assert [change.keys for change in await changes.read(before, wait_s=1)] == [{"key"}]
        await changes.confirm("proxy", await changes.read(before, wait_s=1))
        assert await changes.confirmed(entry_id) == {"proxy"}
        assert list(await changes.proxies()) == ["proxy"]
        await changes.leave("proxy")

        good = await open_good_keys(stack, settings, url)
        assert isinstance(good, GoodKeys)
        good.remember("a key")
        await good.exchange()
        another = await open_good_keys(stack, settings, url)
        assert another is not None
        assert another.has("a key")
    assert relay.encrypted >= 4


async def test_the_documented_rights_are_no_more_than_the_work_needs(valkey: Login, trust: Trust) -> None:
    relay = await valkey.serve(trust.ours.sign_server(*LOOPBACK))
    async with open_redis(valkey.url(relay, ssl_ca_certs=trust.ours.file)) as redis:
        for command in ("SET another 1", "GET another", "FLUSHALL", "KEYS *", "CONFIG GET *", "ACL LIST", "SHUTDOWN"):
            with pytest.raises(NoPermissionError):
                await redis.execute_command(*command.split())  # type: ignore[no-untyped-call]


async def use(url: str) -> None:
    async with AsyncExitStack() as stack:
        await open_buffer(stack, Settings.of({}), url).check_policy()


@pytest.mark.parametrize(
    ("authority", "name", "says"),
    [
        ("others", "localhost", "unable to get local issuer certificate"),
        ("ours", OTHER_NAME, "not valid for 'localhost'"),
    ],
)
async def test_a_valkey_that_does_not_prove_who_it_is_is_refused(
    valkey: Login, trust: Trust, authority: str, name: str, says: str
) -> None:
    relay = await valkey.serve(getattr(trust, authority).sign_server(name))
    url = valkey.url(relay, ssl_ca_certs=trust.ours.file)
    with pytest.raises(DependencyRefused, match=says) as caught:
        await use(url)
    assert f"the certificate of localhost:{relay.port} is not trusted" in str(caught.value)
    async with AsyncExitStack() as stack:
        with pytest.raises(DependencyRefused, match=says):
            await open_key_changes(stack, url).newest()
    assert PASSWORD not in str(caught.value)
    assert relay.encrypted == 0


async def test_the_system_s_authorities_are_those_without_a_ca(valkey: Login, trust: Trust) -> None:
    relay = await valkey.serve(trust.ours.sign_server(*LOOPBACK))
    with pytest.raises(DependencyRefused, match="is not trusted"):
        await use(valkey.url(relay))
    assert relay.encrypted == 0


async def test_a_wrong_password_of_valkey_is_refused(valkey: Login, trust: Trust) -> None:
    relay = await valkey.serve(trust.ours.sign_server(*LOOPBACK))
    with pytest.raises(DependencyRefused, match="invalid username-password pair") as caught:
        await use(valkey.url(relay, "wrong-Xq7", ssl_ca_certs=trust.ours.file))
    assert "Xq7" not in str(caught.value)
