"""Behind PgBouncer in transaction mode, as Supabase's pooler is: many clients on two servers, and nothing mixed up."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.access.identities import KeyOwners
from gateway.accounts.store import Accounts
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.stores.migrator import migrate
from gateway.stores.postgres import open_pool
from tests.conftest import METER, WINDOW_S
from tests.stores.test_roles import A, B, two_users
from tests.support.events import call, new_id, sums_are_right
from tests.support.servers import free_port

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture
def pooled(empty_database_url: str, tmp_path: Path) -> Iterator[str]:
    """A connection string through PgBouncer to an empty database."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed (Debian's package of this name)")
    direct, port = urlsplit(empty_database_url), free_port()
    query = parse_qs(direct.query)
    host = query.get("host", [direct.hostname or "127.0.0.1"])[0]
    server_port = query.get("port", [str(direct.port or 5432)])[0]
    name = direct.path.lstrip("/")
    (tmp_path / "users.txt").write_text(f'"{direct.username}" ""\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host={host} port={server_port} dbname={name} user={direct.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"auth_file = {tmp_path}/users.txt\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n"
        f"logfile = {tmp_path}/log\npidfile =\n"
    )
    as_user = Path(host).stat().st_uid if os.geteuid() == 0 else os.geteuid()  # it refuses to run as root
    if os.geteuid() == 0:
        for path in [tmp_path, *tmp_path.parents]:  # pytest's own folders, for this one user to pass through
            if path.name.startswith(("pytest-", "popen-", "test_")):
                path.chmod(0o711)
        os.chown(tmp_path, as_user, -1)
    process = subprocess.Popen([PGBOUNCER, "-q", tmp_path / "pgbouncer.ini"], user=as_user)
    try:
        url = f"postgresql://{direct.username}@127.0.0.1:{port}/{name}?pgbouncer=true"
        deadline = time.monotonic() + 60
        while not (tmp_path / "log").exists() or "process up" not in (tmp_path / "log").read_text():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


async def test_many_clients_on_two_servers(pooled: str) -> None:
    assert (await migrate(pooled)).applied
    pools = [await open_pool(pooled, connections_max=4) for _ in range(4)]
    ledgers = [Ledger(pool, meter=METER, window_s=WINDOW_S) for pool in pools]
    user = await Accounts(ledgers[0].pool).create_user("u@example.com")
    random = Random(1)
    events = [call(user, new_id(random), seconds=number) for number in range(400)]

    async def write(ledger: Ledger, part: list[int]) -> None:
        for number in part:
            await ledger.insert_batch([LedgerEntry.of(events[number])])
            assert await ledger.find_confirmed([events[number].id]) == {events[number].id}
            assert (await KeyOwners(ledger.pool).identity(user, "none")) is not None

    await asyncio.gather(
        *(write(ledgers[at % 4], list(range(at, 400, 16))) for at in range(16)),
    )
    assert await pools[0].fetchval("select count(*) from openai_usage") == 400
    assert await sums_are_right(pools[0])
    for pool in pools:
        await pool.close()


async def test_row_security_on_shared_connections(pooled: str) -> None:
    """Two users' transactions and anonymous ones take turns on two servers: each sees what its own claims allow."""
    await migrate(pooled)
    pool = await open_pool(pooled, connections_max=12)
    try:
        await pool.execute(two_users())

        async def look(user: str | None) -> list[str]:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("set local role authenticated")
                if user is not None:
                    claims = f'{{"sub": "{user}"}}'
                    await connection.execute("select set_config('request.jwt.claims', $1, true)", claims)
                await asyncio.sleep(0)
                return [row[0] for row in await connection.fetch("select user_id::text from public.openai_usage")]

        askers = [user for _ in range(30) for user in (A, B, None)]
        seen = await asyncio.gather(*(look(user) for user in askers))
        assert seen == [[] if user is None else [user] for user in askers]
    finally:
        await pool.close()
