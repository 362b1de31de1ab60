"""An SQLite file of somebody else's: what is committed is read, in every journal mode, and the file stays as it is."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.kit.errors import OptionError
from gateway.rooms.importing.sqlite_file import open_sqlite
from gateway.rooms.importing.values import Value
from tests.rooms.importing.sqlite_files import untouched

ROWS = 300


def fill(connection: sqlite3.Connection) -> None:
    connection.execute("create table rooms (id integer primary key, name text)")
    connection.executemany("insert into rooms (name) values (?)", [(f"room {number}",) for number in range(ROWS)])


def names(path: Path) -> list[Value]:
    """What is read of `rooms`, in order."""
    with open_sqlite(path) as file:
        assert file.names() == ["rooms"]
        table = file.table("rooms")
        rows = [row["name"] for row in file.rows(table)]
        assert table.rows == len(rows)
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "old"
    made.mkdir()
    yield made
    made.chmod(0o700)


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_a_file_at_rest_is_read_and_nothing_is_left_beside_it(folder: Path, mode: str) -> None:
    with closing(sqlite3.connect(folder / "a.db")) as connection:
        connection.execute(f"pragma journal_mode = {mode}")
        with connection:
            fill(connection)
    folder.chmod(0o500)  # also where nothing could be written
    with untouched(folder):
        assert names(folder / "a.db") == [f"room {number}" for number in range(ROWS)]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_writer_in_the_middle_of_a_transaction_is_not_seen(folder: Path, mode: str) -> None:
    with closing(sqlite3.connect(folder / "a.db", isolation_level=None)) as live:
        live.execute(f"pragma journal_mode = {mode}")
        live.execute("pragma wal_autocheckpoint = 0")
        fill(live)
        live.execute("update rooms set name = 'committed' where id = 1")
        live.execute("begin")
        live.execute("update rooms set name = 'not committed' where id = 2")
        if mode == "wal":
            assert (folder / "a.db-wal").stat().st_size
            assert b"committed" not in (folder / "a.db").read_bytes()
        with untouched(folder):
            assert names(folder / "a.db")[:3] == ["committed", "room 1", "room 2"]
        live.execute("rollback")


def test_while_it_is_read_in_place_nobody_can_change_it(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "a.db", isolation_level=None, timeout=0)) as live:
        fill(live)
        with open_sqlite(folder / "a.db") as file:
            table = file.table("rooms")
            first = [row["name"] for row in file.rows(table)]
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                live.execute("update rooms set name = 'changed'")
            assert [row["name"] for row in file.rows(table)] == first
        live.execute("update rooms set name = 'changed'")


def test_a_journal_left_by_a_crash_is_played_back_in_a_copy_only(folder: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "live.db", isolation_level=None)) as live:
        fill(live)
        live.execute("pragma cache_size = 1")
        live.execute("begin")
        live.execute("update rooms set name = 'half done' || zeroblob(4000)")
        for name in ("live.db", "live.db-journal"):  # what a crash at this moment would leave
            shutil.copyfile(tmp_path / name, folder / name)
        live.execute("rollback")
    assert b"half done" in (folder / "live.db").read_bytes()
    with untouched(folder):
        assert names(folder / "live.db") == [f"room {number}" for number in range(ROWS)]


def test_what_is_no_whole_sqlite_file_is_refused(folder: Path) -> None:
    (folder / "text").write_text("not a database")
    (folder / "empty").touch()
    with closing(sqlite3.connect(folder / "torn")) as connection, connection:
        fill(connection)
        connection.executemany("insert into rooms (name) values (?)", [("x" * 1000,)] * 100)
    (folder / "torn").write_bytes((folder / "torn").read_bytes()[:20_000])
    refusals = {}
    with untouched(folder):
        for name in ("text", "empty", "absent", "torn"):
            with pytest.raises(OptionError) as refused, open_sqlite(folder / name):
                pass
            refusals[name] = str(refused.value)
    assert refusals["text"].endswith("is not an SQLite file")
    assert refusals["empty"].endswith("is not an SQLite file")
    assert "No such file" in refusals["absent"]
    assert refusals["torn"].startswith("FILE: it is damaged") or "malformed" in refusals["torn"]


def test_a_file_that_does_not_hold_still_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(folder / "a.db")) as connection:
        connection.execute("pragma journal_mode = wal")
        with connection:
            fill(connection)
    copyfile = shutil.copyfile

    def while_written(source: Path, target: Path) -> None:
        copyfile(source, target)
        with source.open("ab") as file:
            file.write(b"\0")

    monkeypatch.setattr(shutil, "copyfile", while_written)
    with pytest.raises(OptionError, match="is being written"), open_sqlite(folder / "a.db"):
        pass


def test_keys_names_and_values_of_every_kind(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "a.db")) as connection, connection:
        connection.execute('create table "a ""b" (rowid, [x;] text, "é" blob)')
        connection.execute("insert into \"a \"\"b\" values (1, cast(x'ff41' as text), x'00'), (null, 'ü', 2.5)")
        connection.execute("create table two (b, a, c, primary key (a, b)) without rowid")
        connection.execute("create table bad (rowid, _rowid_, oid)")
    with open_sqlite(folder / "a.db") as file:
        assert file.names() == ['a "b', "bad", "two"]
        with pytest.raises(OptionError, match="'bad' cannot be distinguished"):
            file.table("bad")
        odd, two = file.table('a "b'), file.table("two")
        assert (odd.name, odd.columns, odd.key, odd.has_key) == ('a "b', ("rowid", "x;", "é"), ("_rowid_",), False)
        assert (two.columns, two.key, two.has_key) == (("b", "a", "c"), ("a", "b"), True)
        assert list(file.rows(odd)) == [
            {"rowid": 1, "x;": b"\xffA", "é": b"\0", "_rowid_": 1},  # text that is not UTF-8 stays what it is
            {"rowid": None, "x;": "ü", "é": 2.5, "_rowid_": 2},
        ]
