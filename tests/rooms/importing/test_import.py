"""An SQLite file becomes rooms: twice with the same result, sealed, proven; the file itself is never touched."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.accounts.store import Accounts
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.rooms.importing.sqlite_files import untouched
from tests.rooms.rooms_at_work import BOTH, CANARY, NEW, OLD, open_rooms_api
from tests.rooms.test_rotation import env
from tests.support.invoke import Done, gateway

SCHEMA = """
create table sessions (
  id integer primary key, room text, owner text, phase text, begun integer, over text,
  candidate text, notes text, token blob, score real, step integer, internal text
)
"""
MAP = """
table = "sessions"
[columns]
room = "room_name"
owner = "user_email"
phase = "state"
begun = "started_at"
over = "ended_at"
step = "data.step"
score = "data.score"
internal = "ignore"
[states]
done = "ended"
"""


def row(number: int) -> tuple[object, ...]:
    odd = number % 2
    return (
        number, f"room-{number % 50}", "Ann@example.com" if odd else None, "done" if odd else "open",
        1_700_000_000_000 + number if odd else 1_700_000_000 + number,
        f"2026-11-24T10:00:{number % 60:02d}" if odd else None,
        f"{CANARY} {number} ü", None if number % 3 else f"{CANARY}\0x", bytes([number % 256, 0, 255]),
        number / 7, number, CANARY,
    )  # fmt: skip


def write(path: Path, rows: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(SCHEMA)
        connection.executemany(f"insert into sessions values ({', '.join('?' * 12)})", map(row, range(1, rows + 1)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "old"
    made.mkdir()
    return made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "map.toml"
    path.write_text(MAP)
    return path


@pytest.fixture
async def ann(ledger: Ledger) -> str:
    return await Accounts(ledger.pool).create_user("ann@example.com")


async def load(database_url: str, file: Path, *more: object, ring: Any = BOTH) -> tuple[Done, dict[str, Any]]:
    done = await gateway(env(database_url, ring), "rooms", "import-sqlite", str(file), "--json", *map(str, more))
    assert CANARY not in done.out + done.noted + done.error
    return done, json.loads(done.out) if done.out else {}


async def table(pool: Pool) -> list[dict[str, Any]]:
    return [dict(each) for each in await pool.fetch("select * from rooms order by source_id")]


@pytest.mark.parametrize("rows", [1_200, pytest.param(10_000, marks=pytest.mark.long)])
async def test_a_whole_file_twice(
    pool: Pool, database_url: str, folder: Path, config: Path, ann: str, rows: int
) -> None:
    file = folder / "old.db"
    write(file, rows)
    with untouched(folder):
        first, report = await load(database_url, file, "--config", config)
        assert (first.status, report["made"], report["failed"], report["whole"]) == (0, rows, {}, True)
        verified = report["verified"]
        assert verified["file"] == verified["rooms"]
        assert verified["file"]["rows"] == rows
        stored = await table(pool)
        second, again = await load(database_url, file, "--config", config)
        assert (second.status, again["made"], again["updated"], again["unchanged"]) == (0, 0, 0, rows)
        assert again["verified"] == verified
        assert await table(pool) == stored
    assert len(stored) == rows
    assert CANARY.encode() not in b"".join(repr(each).encode() + bytes(each["sealed"]) for each in stored)
    async with open_rooms_api(pool, BOTH) as api:
        one = await pool.fetchval("select id::text from rooms where source_id = 'sessions:3'")
        room = (await api.call("GET", f"/rooms/{one}?include=sensitive")).body
    assert (room["room_name"], room["user_id"], room["state"]) == ("room-3", ann, "ended")
    assert (room["started_at"], room["ended_at"]) == ("2023-11-14T22:13:20.003000Z", "2026-11-24T10:00:03Z")
    assert room["data"] == {"step": 3, "score": 3 / 7}
    assert room["sensitive"] == {
        "candidate": f"{CANARY} 3 ü",
        "notes": f"{CANARY}\0x",
        "token": {"base64": "AwD/"},
    }


async def test_a_dry_run_shows_everything_but_what_is_sealed_and_changes_nothing(
    pool: Pool, database_url: str, folder: Path, config: Path
) -> None:
    file = folder / "old.db"
    write(file, 4)
    with untouched(folder):
        arguments = ("rooms", "import-sqlite", str(file), "--config", str(config), "--dry-run")
        done = await gateway(env(database_url, NEW), *arguments)
    assert done.status == 1
    assert CANARY not in done.out
    assert "4 rows: 2 would be made" in done.out
    assert "sessions:1: user_email: there is no user with this address" in done.out
    assert "ann@" not in done.out.lower()
    assert "candidate=(sealed)" in done.out
    assert "encrypted, because the map does not list it" in done.out
    assert "step=1" in done.out
    assert await pool.fetchval("select count(*) from rooms") == 0


async def test_what_changed_is_written_over_only_when_told_so(
    pool: Pool, database_url: str, folder: Path, config: Path, ann: str
) -> None:
    file = folder / "old.db"
    write(file, 6)
    await load(database_url, file, "--config", config)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("update sessions set notes = 'other' where id = 2")
        connection.execute("update sessions set step = 77 where id = 5")
        connection.execute("delete from sessions where id = 6")
    await pool.execute("update rooms set expires_at = now() where source_id = 'sessions:4'")
    async with open_rooms_api(pool, BOTH) as api:
        expired = await pool.fetchval("select id::text from rooms where source_id = 'sessions:4'")
        assert (await api.call("POST", f"/rooms/{expired}/expire")).status == 200
    before = await table(pool)
    done, report = await load(database_url, file, "--config", config)
    assert (done.status, report["differing"], report["expired"]) == (1, ["sessions:2", "sessions:5"], 1)
    assert report["verified"]["wrong"] == dict.fromkeys(report["differing"], "differs from the file")
    assert await table(pool) == before
    done, report = await load(database_url, file, "--config", config, "--update")
    assert (done.status, report["updated"], report["unchanged"], report["expired"]) == (0, 2, 2, 1)
    assert report["rooms_of_this_source"] == 6
    after = {each["source_id"]: each for each in await table(pool)}
    assert (after["sessions:2"]["version"], after["sessions:4"]["sealed"], after["sessions:1"]["version"]) == (
        2,
        None,
        1,
    )


async def test_a_row_that_cannot_be_taken_is_told_and_the_rest_goes_on(
    pool: Pool, database_url: str, folder: Path, tmp_path: Path
) -> None:
    file = folder / "old.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("create table rooms (key text, room_name text, started_at, user_id text, meeting_id, x, y)")
        rows = [
            ("a", "fine", 1, None, None, 1, 2),
            ("b", None, 1, None, None, 1, 2),
            ("c", "late", "someday", None, None, 1, 2),
            ("d", "who", None, "nobody", None, 1, 2),
            ("e", "who", None, "00000000-0000-7000-8000-0000000000aa", None, 1, 2),
            ("f", "which", None, None, "00000000-0000-7000-8000-0000000000bb", 1, 2),
            ("a", "again", None, None, None, 1, 2),
            (None, "no key", None, None, None, 1, 2),
            ("g", "huge", None, None, None, float("inf"), 2),
            ("h", "nul", None, None, None, 1, "a\0b"),
            ("i", "far", 99_999_999_999, None, None, 1, 2),
        ]
        connection.executemany("insert into rooms values (?, ?, ?, ?, ?, ?, ?)", rows)
    config = tmp_path / "map.toml"
    named = ("room_name", "started_at", "user_id", "meeting_id")
    columns = "\n".join(f'{name} = "{name}"' for name in named)
    config.write_text(f'[columns]\n{columns}\nkey = "source_key"\ny = "data.y"\n')
    with untouched(folder):
        done, report = await load(database_url, file, "--config", config)
    assert (done.status, report["rows"], report["made"]) == (1, len(rows), 2)
    assert report["columns"]["x"] == "sealed.x"
    assert {label: why.partition(" (")[0] for label, why in report["failed"].items()} == {
        "rooms:b": "column 'room_name'",
        "rooms:c": "column 'started_at'",
        "rooms:d": "column 'user_id'",
        "rooms:e": "user_id: there is no such user",
        "rooms:f": "meeting_id: there is no such meeting",
        "rooms:a (again)": "an earlier row has the same key",
        "row 8": "the key",
        "rooms:g": "column 'x'",
        "rooms:h": "column 'y'",
    }
    assert report["verified"]["holds"] is True
    assert [each["room_name"] for each in await table(pool)] == ["fine", "far"]


async def test_without_a_map_names_are_guessed_and_the_rest_is_sealed(
    database_url: str, folder: Path, tmp_path: Path
) -> None:
    file = folder / "old.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("create table rooms (id integer primary key, room_name, status, user_id, started, email)")
        connection.execute("insert into rooms values (1, 'r', 'open', 17, 1700000000, 'cy@example.com')")
    with untouched(folder):
        done, report = await load(database_url, file)
        printed = await gateway({}, "rooms", "import-map", str(file))
    expected = {
        "id": "source_key",
        "room_name": "room_name",
        "status": "state",
        "user_id": "sealed.user_id",  # 17 is not an id of ours
        "started": "started_at",
        "email": "sealed.email",
    }
    assert (done.status, report["columns"]) == (0, expected)
    config = tmp_path / "printed.toml"
    config.write_text(printed.out)
    done, report = await load(database_url, file, "--config", config)
    assert (done.status, report["columns"], report["unchanged"]) == (0, expected, 1)


async def test_with_another_key_or_a_changed_envelope_nothing_is_lost_or_written_over(
    pool: Pool, database_url: str, folder: Path, config: Path, ann: str
) -> None:
    file = folder / "old.db"
    write(file, 4)
    await load(database_url, file, "--config", config, ring=OLD)
    await pool.execute(
        "update rooms set sealed = overlay(sealed placing '\\x00'::bytea from 30) where source_id = 'sessions:2'"
    )
    before = await table(pool)
    half, report = await load(database_url, file, "--config", config, "--update", ring=BOTH)
    assert (half.status, list(report["failed"]), report["unchanged"]) == (1, ["sessions:2"], 3)
    wrong, report = await load(database_url, file, "--config", config, "--update", ring=NEW)
    assert (wrong.status, len(report["failed"])) == (1, 4)
    assert "'old', which ROOMS_KEYS does not have" in report["verified"]["wrong"]["sessions:1"]
    assert await table(pool) == before


WRONG_MAPS = (
    ("[columns", "is not TOML"),
    ("colums = 1", "unknown: colums"),
    ('[columns]\nnothere = "ignore"', "no column 'nothere'"),
    ('[columns]\nroom = "name"', "'name' is not a target"),
    ('[columns]\nroom = "data."', "'data.' is not a target"),
    ('[columns]\nroom = "room_name"\nphase = "room_name"', "are both room_name"),
    ('[columns]\nphase = "state"', "no column is the room_name"),
    ('[columns]\nroom = "room_name"\nowner = "user_id"\nphase = "user_email"', "both mapped"),
    ('[columns]\nroom = "room_name"\n[states]\nx = "expired"', "may not be set to 'expired'"),
    ("[columns]\nroom = 1", "must be a table of text"),
)


async def test_a_wrong_map_is_refused(database_url: str, folder: Path, tmp_path: Path) -> None:
    write(folder / "old.db", 1)
    path = tmp_path / "map.toml"
    for toml, says in WRONG_MAPS:
        path.write_text(toml)
        done, _ = await load(database_url, folder / "old.db", "--config", path)
        assert done.status == 1
        assert says in done.error, toml


async def test_the_table_must_be_known(database_url: str, folder: Path) -> None:
    file = folder / "two"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript("create table a (x); create table b (x)")
    for arguments, says in (
        ((), "say which table has the rooms; the file has: a, b"),
        (("c",), "no table 'c'"),
    ):
        done, _ = await load(database_url, file, *(part for name in arguments for part in ("--table", name)))
        assert done.status == 1
        assert says in done.error
