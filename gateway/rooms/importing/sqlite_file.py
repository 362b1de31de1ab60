"""Reads an SQLite file without writing to it and without leaving files beside it.

A file with a rollback journal is read in place, within one transaction, so a writer waits for us or we for it. One in
WAL mode, or with a journal left over from a crash, cannot be read without writing beside it, and read as if it never
changed it may be read wrong: of such a file and what lies beside it a copy is made, in a folder that only we can read.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple
from urllib.parse import quote

from gateway.kit.errors import OptionError
from gateway.rooms.importing.values import Value

_MAGIC: Final = b"SQLite format 3\0"
_WAL: Final = 2
"""At byte 18 or 19 of the file: it is read or written through a WAL."""
_BESIDE: Final = ("-wal", "-journal")
COPIES_MAX: Final = 3
BUSY_S: Final = 5.0
"""Seconds that a writer may keep us waiting."""


class SqliteTable(NamedTuple):
    """A table of the file."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    """Its primary key, or the name by which its rowid can be asked for."""
    has_key: bool
    """Whether the table declares that key: a rowid that it does not declare may change."""
    rows: int


class SqliteFile:
    """What can be asked of an open file. Methods raise OptionError when it turns out to be damaged."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection

    def names(self) -> list[str]:
        """Every table that is not SQLite's own."""
        query = (
            "select name from sqlite_schema where type = 'table' and name not like 'sqlite!_%' escape '!' order by 1"
        )
        with _damage_told():
            return [str(row[0]) for row in self._connection.execute(query).fetchall()]

    def rows(self, table: SqliteTable, *, rows_max: int = -1) -> Iterator[dict[str, Value]]:
        """Its rows by the names of their columns, in the order of the key, which is among them."""
        names = list(dict.fromkeys((*table.columns, *table.key)))
        order = ", ".join(map(_quote, table.key))
        query = f"select {', '.join(map(_quote, names))} from {_quote(table.name)} order by {order} limit ?"  # noqa: S608
        with _damage_told():
            for row in self._connection.execute(query, (rows_max,)):
                yield dict(zip(names, row, strict=True))

    def table(self, name: str) -> SqliteTable:
        """One of them. Raises OptionError also when its rows cannot be distinguished."""
        with _damage_told():
            info = self._connection.execute(f"pragma table_info({_quote(name)})").fetchall()
            count = self._connection.execute(f"select count(*) from {_quote(name)}").fetchone()  # noqa: S608 - quoted
        columns = tuple(str(row[1]) for row in info)
        key = tuple(str(row[1]) for row in sorted((row for row in info if row[5]), key=lambda row: int(row[5])))
        taken = {column.lower() for column in columns}
        rowid = next((each for each in ("rowid", "_rowid_", "oid") if each not in taken), None)
        if not key and rowid is None:
            raise OptionError(f"FILE: the rows of the table {name!r} cannot be distinguished: it has no primary key")
        return SqliteTable(name, columns, key or (str(rowid),), bool(key), int(count[0]))


@contextmanager
def open_sqlite(path: Path) -> Iterator[SqliteFile]:
    """The file, as it is at this moment until the context ends. Raises OptionError when it is not an SQLite file, is
    damaged or does not hold still.
    """
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise OptionError(f"FILE: {path} cannot be read: {error.strerror}") from None
    if not head.startswith(_MAGIC):
        raise OptionError(f"FILE: {path} is not an SQLite file")
    beside = any(_size(path, suffix) for suffix in _BESIDE)
    if beside or _WAL in head[18:20]:
        with (
            TemporaryDirectory(prefix="rooms-") as folder,
            _open_file(_copy(path, Path(folder)), "rw") as connection,
        ):
            yield SqliteFile(connection)
    else:
        with _open_file(path, "ro") as connection:
            yield SqliteFile(connection)


@contextmanager
def _open_file(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    with _damage_told():
        uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        connection.text_factory = _text
        with _damage_told():
            connection.execute("pragma query_only = on")
            connection.execute("begin")
            found = connection.execute("pragma quick_check(1)").fetchone()
        if found[0] != "ok":
            raise OptionError("FILE: it is damaged (`pragma integrity_check` in the sqlite3 shell says how)")
        yield connection
    finally:
        connection.close()


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # What SQLite says names no value; a lock is the only one that waiting helps.
        raise OptionError(f"FILE: it cannot be read: {error}") from None


def _copy(path: Path, folder: Path) -> Path:
    """A copy of the file with what lies beside it, all of one moment."""
    copy = folder / "copy.sqlite"
    for _ in range(COPIES_MAX):
        before = _state(path)
        for suffix in ("", *_BESIDE):
            target = copy.with_name(copy.name + suffix)
            target.unlink(missing_ok=True)
            if _size(path, suffix):
                shutil.copyfile(path.with_name(path.name + suffix), target)
        if _state(path) == before:
            return copy
    raise OptionError(f"FILE: {path} is being written; stop what writes it, or give a copy (`.backup` makes one)")


def _state(path: Path) -> Sequence[tuple[int, int, int]]:
    found = []
    for suffix in ("", *_BESIDE):
        try:
            status = path.with_name(path.name + suffix).stat()
        except FileNotFoundError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def _size(path: Path, suffix: str) -> int:
    try:
        return path.with_name(path.name + suffix).stat().st_size
    except FileNotFoundError:
        return 0


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
