"""`gateway doctor` on PostgreSQL, Redis and the journal's disk: each finding provoked on real servers."""

import asyncio
import os
import time
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from gateway.doctor import checks as doctor
from gateway.doctor import stores
from gateway.stores import disk
from gateway.stores.redis import open_redis
from tests.config.test_problems import SECRET
from tests.doctor.doctors import found, on, says, settings
from tests.processes.test_serve_refusals import valkey
from tests.support.patience import ENDS_S
from tests.support.servers import free_port

POSTGRES = {
    "all is well": ("select 1", "ok", "all migrations applied"),
    "read-only": ("alter database {name} set default_transaction_read_only = on", "fail", "it is read-only"),
    "refuses rows": (
        "alter table usage_quarantine add constraint nothing check (false) not valid",
        "fail",
        'violates check constraint "nothing"',
    ),
    "not durable": ("alter database {name} set synchronous_commit = off", "warn", "synchronous_commit off"),
    "another migration": (
        "update supabase_migrations.schema_migrations set name = 'theirs' where version = '20261122220100'",
        "fail",
        "the database has the migration 20261122220100_theirs",
    ),
    "behind": (
        "delete from supabase_migrations.schema_migrations where version = '20261122220100'",
        "fail",
        "1 migration(s) not applied: 20261122220100_add_row_policies",
    ),
    "ahead": (
        "insert into supabase_migrations.schema_migrations (version) values ('20990101000000')",
        "warn",
        "1 migration(s) that this version does not know: 20990101000000",
    ),
    "quarantine": (
        "insert into usage_quarantine (event_id, raw, reason) values ('x', 'x', 'x')",
        "warn",
        "1 event(s) in usage_quarantine",
    ),
    "no price": (
        "insert into users (id, email) values ('00000000-0000-4000-8000-000000000001', 'u@example.com');"
        "insert into openai_usage (id, user_id, endpoint, model, evidence, started_at, completed_at) values"
        " (gen_random_uuid(), '00000000-0000-4000-8000-000000000001', 'chat', 'gpt-99', 'unpriced', now(), now())",
        "warn",
        "calls of the last 7 days without a price: gpt-99",
    ),
}


@pytest.mark.parametrize("case", POSTGRES)
async def test_postgres(case: str, database_url: str) -> None:
    statement, level, text = POSTGRES[case]
    await on(database_url, statement.format(name=urlsplit(database_url).path.lstrip("/")))
    # The tests' server promises nothing to its disk (fsync off), which is a finding of its own.
    every = says(await found("postgres", settings(database_url=database_url)))
    seen = [(is_level, said) for is_level, said in every if "fsync off" not in said]
    if case == "all is well":
        assert seen == []
    else:
        ((is_level, is_said),) = seen or every
        assert (is_level, text in is_said) == (level, True)


async def test_postgres_that_refuses_or_is_not_there(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = urlsplit(database_url)._replace(path="/no_such_database").geturl()
    (refused,) = await found("postgres", settings(database_url=other))
    assert (refused.level, refused.fix) == ("fail", "correct DATABASE_URL")
    (away,) = await found("postgres", settings(database_url=f"postgresql://u:{SECRET}@127.0.0.1:1/x"))
    assert (away.level, away.fix) == ("fail", "start it, or correct DATABASE_URL")
    (rooms,) = await found("rooms", settings(database_url=f"postgresql://u:{SECRET}@127.0.0.1:1/x"))
    assert (rooms.level, rooms.says, rooms.fix) == ("warn", "not checked: postgres is away", "see postgres")
    (missing,) = await found("postgres", settings())
    assert (missing.level, "DATABASE_URL" in missing.says) == ("fail", True)
    monkeypatch.setattr(stores, "POSTGRES_MIN", 99)
    old = await found("postgres", settings(database_url=database_url))
    assert ("fail", True) in [(finding.level, "99 or later is needed" in finding.says) for finding in old]
    monkeypatch.setattr(doctor, "CHECK_S", 0.0)
    (slow,) = await found("postgres", settings(database_url=database_url))
    assert "no answer within" in slow.says


async def test_postgres_without_the_roles_of_processes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PROCESSES", ("proxy", "absent"))
    seen = says(await found("postgres", settings(database_url=database_url)))
    text = "role(s) gateway_absent missing: every process has all rights of DATABASE_URL"
    assert ("warn", text) in seen


async def test_postgres_without_rights(database_url: str) -> None:
    role = f"reader_{uuid4().hex[:8]}"
    await on(database_url, f"create role {role} login", f"grant usage on schema supabase_migrations to {role}",
             f"grant select on all tables in schema supabase_migrations, public to {role}")  # fmt: skip
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    dsn = parts._replace(netloc=f"{role}@{host}").geturl()
    try:
        seen = says(await found("postgres", settings(database_url=dsn)))
        assert ("fail", "the login may not write the ledger") in seen
    finally:
        await on(database_url, f"drop owned by {role}", f"drop role {role}")


async def test_redis(tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    loaded = settings(redis_url=url)
    (away,) = await found("redis", loaded)
    assert (away.level, away.fix) == ("fail", "start it, or correct REDIS_URL")
    with valkey(tmp_path, port):
        assert says(await found("redis", loaded)) == [
            ("warn", "no append-only file: after a restart the journal has to send again what was in the stream")
        ]
        async with open_redis(url) as client:
            await client.config_set("appendonly", "yes")
            async with asyncio.timeout(ENDS_S):
                while says(await found("redis", loaded))[0][0] != "ok":
                    await asyncio.sleep(0.02)  # the first rewrite of the file takes a moment
            assert says(await found("redis", loaded)) == [("ok", "noeviction; 0 event(s) waiting in the stream")]
            old = f"{int((time.time() - 400) * 1000)}-0"
            await client.xadd("gateway:usage", {"e": b"x", "id": "x"}, id=old)
            await client.xgroup_create("gateway:usage", "somebody", id="0")
            used = (await client.info("memory"))["used_memory"]
            await client.config_set("maxmemory", str(int(used * 1.1)))
            seen = says(await found("redis", loaded))
            for text in ("when it is full, events wait", "other groups read", "1 event(s) wait, the oldest"):
                assert any(text in said for _, said in seen), text
            assert all(level == "warn" for level, _ in seen)
            await client.config_set("maxmemory", "1")
            seen = says(await found("redis", loaded))
            assert [level for level, said in seen if "it takes no writes" in said and "maxmemory" in said] == ["fail"]
            await client.config_set("maxmemory", "0")
            await client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
            (replica,) = await found("redis", loaded)
            assert (replica.level, "read-only replica" in replica.says) == ("fail", True)
            await client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
            await client.config_set("maxmemory-policy", "volatile-lru")
            (evicting,) = await found("redis", loaded)
            assert (evicting.level, "maxmemory-policy noeviction" in evicting.says) == ("fail", True)


async def test_a_node_of_a_cluster(tmp_path: Path) -> None:
    port = free_port()
    with valkey(tmp_path, port, "--cluster-enabled", "yes"):
        (node,) = await found("redis", settings(redis_url=f"redis://127.0.0.1:{port}"))
        assert (node.level, "Redis Cluster (cluster_enabled)" in node.says) == ("fail", True)


DISKS = {
    "well": (disk.Disk(0.5, 10 << 40, "ext4"), "ok", "is writable; a synchronous write takes 0.5 ms"),
    "slow": (disk.Disk(50.0, 10 << 40, "ext4"), "warn", "a synchronous write takes 50.0 ms"),
    "nearly full": (disk.Disk(0.5, 200 << 20, "ext4"), "warn", "200 MB free"),
    "full": (disk.Disk(0.5, 1 << 20, "ext4"), "fail", "1 MB free: calls are refused"),
    "network": (disk.Disk(0.5, 10 << 40, "nfs4"), "warn", "is on nfs4: a network file system"),
    "fleeting": (disk.Disk(0.5, 10 << 40, "overlay"), "warn", "is on overlay: gone with this machine or container"),
}


@pytest.mark.parametrize("case", DISKS)
async def test_journal(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed, level, text = DISKS[case]
    monkeypatch.setattr(disk, "probe", lambda _folder: probed)
    ((is_level, is_said),) = says(await found("journal", settings(gateway_data_dir=tmp_path)))
    assert (is_level, text in is_said) == (level, True)


async def test_journal_on_a_real_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (refused,) = await found("journal", settings(gateway_data_dir=tmp_path / "file"))
    assert (refused.level, refused.fix) == ("fail", "make GATEWAY_DATA_DIR writable")
    fresh = await found("journal", settings(gateway_data_dir=tmp_path / "new" / "data"))
    assert {finding.level for finding in fresh} <= {"ok", "warn"}
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "the doctor makes nothing"
    (tmp_path / "journal").mkdir()
    found_disk = disk.probe(tmp_path / "journal")
    assert found_disk.sync_ms > 0
    assert found_disk.free_bytes > 0
    assert found_disk.kind != "unknown"
    assert list((tmp_path / "journal").iterdir()) == []
    left = tmp_path / "journal" / "proxy-0.0000000000001.000001.jnl"
    left.write_bytes(b"")
    os.utime(left, (1, 1))
    seen = says(await found("journal", settings(gateway_data_dir=tmp_path)))
    assert ("warn", "1 unconfirmed segment(s), and no keeper runs on this folder") in seen
