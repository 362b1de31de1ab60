"""The set-up of the stores in deploy/: a PostgreSQL whose logins own nothing, and a Valkey that asks for a password."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as NotThere

from gateway.config.database_logins import PROCESSES
from gateway.embedded import binaries
from gateway.ledger.stream import Buffer
from gateway.stores.migrator import compare, migrate
from gateway.stores.redis import open_redis
from tests.stores.test_roles import bare_server
from tests.support.servers import free_port, on_database
from tests.support.source import TOP

__all__ = ["bare_server"]
LOGINS: Final = TOP / "deploy" / "postgres" / "logins.sh"
START: Final = TOP / "deploy" / "valkey" / "start.sh"
PASSWORD: Final = "a-password-of-valkey"


@pytest.fixture
def environment(bare_server: str) -> dict[str, str]:
    """What compose.yaml gives the script."""
    (socket,) = parse_qs(urlsplit(bare_server).query)["host"]
    names = ("OWNER", "APP", "PROXY", "KEEPER", "WORKER", "REPORTS")
    psql = binaries.find_postgres().path.with_name("psql").parent
    return {
        "PATH": f"{psql}:{os.environ['PATH']}",
        "PGHOST": socket,
        "POSTGRES_USER": "gateway",
        "POSTGRES_DB": "app",
        **{f"{name}_PASSWORD": f"{name.lower()}'s \\ password" for name in names},
    }


async def test_the_logins_of_deploy_can_do_their_work_and_own_nothing(
    bare_server: str, environment: dict[str, str]
) -> None:
    superuser = await asyncpg.connect(bare_server)
    await superuser.execute("create database app")
    try:
        for _ in range(2):  # again after a password has changed
            subprocess.run(["bash", LOGINS], env=environment, check=True, capture_output=True)
        report = await migrate(on_database(bare_server, "app", "gateway_owner"))
        assert report.notices == []
        logins = ["gateway_owner", "gateway_app", *(f"gateway_{process}_login" for process in PROCESSES)]
        powers = """
          select rolname from pg_authid where rolname = any($1::text[]) and (not rolcanlogin or rolsuper
            or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication
            or rolpassword not like 'SCRAM-SHA-256%')"""
        assert await superuser.fetch(powers, logins) == []
        assert await superuser.fetchval("select count(*) from pg_authid where rolname = any($1::text[])", logins) == 6
        may_book = "select has_table_privilege($1, 'public.openai_usage', 'insert')"
        connection = await asyncpg.connect(on_database(bare_server, "app", "gateway_app"))
        assert await connection.fetchval(may_book, "gateway_app")  # `gateway adjust` books a correction
        assert not await connection.fetchval(may_book, "service_role")
        await connection.close()
        for login, statement in (
            ("gateway_app", "select count(*) from users"),
            ("gateway_proxy_login", "select count(id) from users"),
            ("gateway_keeper_login", "select count(id) from openai_usage"),
            ("gateway_worker_login", "select count(*) from stripe_meter_events"),
            ("gateway_reports_login", "select count(*) from openai_usage"),
        ):
            connection = await asyncpg.connect(on_database(bare_server, "app", login))
            assert await connection.fetchval(statement) == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("create table public.mine (id int)")
            if login in ("gateway_app", "gateway_worker_login"):  # `serve` and `worker` look before they start
                assert (await compare(connection)).behind == []
            await connection.close()
    finally:
        await superuser.execute("drop database app with (force)")
        for row in await superuser.fetch("select rolname from pg_roles where rolname like 'gateway\\_%'"):
            await superuser.execute(f"drop role {row['rolname']}")
        await superuser.close()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where a Valkey listens that was started as compose.yaml starts it."""
    found, number = binaries.find_valkey().path, free_port()
    command = ["sh", str(START), "--port", str(number), "--maxmemory-policy", "noeviction", "--save", ""]
    env = {
        "PATH": f"{found.parent}:{os.environ['PATH']}",
        "VALKEY_PASSWORD": PASSWORD,
        "ACL_FILE": str(tmp_path / "users.acl"),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=tmp_path)
    try:
        yield number
    finally:
        process.terminate()
        process.wait()


async def test_valkey_asks_for_a_password_and_its_user_may_do_the_gateway_s_work(port: int, tmp_path: Path) -> None:
    redis = open_redis(f"redis://gateway:{PASSWORD}@127.0.0.1:{port}")
    buffer = Buffer(redis, stream="usage")
    async with asyncio.timeout(60):
        while True:
            try:
                await redis.ping()
                break
            except NotThere:
                await asyncio.sleep(0.05)
    try:
        await buffer.ensure_group()
        await buffer.check_policy()
        assert await buffer.try_write() is None
        assert (await buffer.state()).entries == 0
        assert await redis.eval("return redis.call('SET', KEYS[1], 1)", 1, "key")
        for command in ("FLUSHALL", "CONFIG GET *", "KEYS *", "ACL LIST", "SHUTDOWN"):
            with pytest.raises(NoPermissionError):
                await redis.execute_command(*command.split())  # type: ignore[no-untyped-call]
    finally:
        await redis.aclose()
    assert PASSWORD not in (tmp_path / "users.acl").read_text()
    for url in (f"redis://127.0.0.1:{port}", f"redis://gateway:wrong@127.0.0.1:{port}"):
        async with open_redis(url) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.get("key")


async def test_the_settings_of_postgresql_in_the_compose_file_are_settings(bare_server: str) -> None:
    text = (TOP / "deploy" / "compose.yaml").read_text()
    given = dict(re.findall(r"^      - (\w+)=(?:\$\{\w+:-)?([\w.]+)\}?$", text, re.MULTILINE))
    assert len(given) == text.count("\n      - -c\n") > 5
    connection = await asyncpg.connect(bare_server)
    try:
        rows = await connection.fetch("select name, unit from pg_settings where name = any($1)", [*given])
    finally:
        await connection.close()
    units = {row["name"]: row["unit"] for row in rows}
    assert sorted(set(given) - set(units)) == []
    sizes = {name: value for name, value in given.items() if units[name] in ("8kB", "MB", "kB")}
    assert len(sizes) == 3
    assert [name for name, value in sizes.items() if not re.fullmatch(r"\d+(MB|GB)", value)] == []
