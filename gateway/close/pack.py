"""Writes a pack: each file once, front to back, with its digest; the folder appears whole or not at all."""

import json
import lzma
import os
import shutil
from collections.abc import AsyncIterable, Iterator, Sequence
from contextlib import contextmanager
from csv import writer
from decimal import Decimal
from hashlib import sha256
from io import RawIOBase, TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from gateway.cli.csv_text import escape_formula
from gateway.close.manifest import (
    MANIFEST,
    SIGNATURE,
    Manifest,
    public_key_of,
    sign,
    write_manifest,
)
from gateway.close.rows import Chain, PackRow, encode_rows
from gateway.close.totals import Totals
from gateway.journal.sync_folder import sync_folder
from gateway.kit.errors import Expected

ROWS: Final = "rows.jsonl.xz"
CHAIN: Final = "chain.csv"
TOTALS: Final = "totals.json"
BRIDGE: Final = "bridge.json"
AUDIT: Final = "audit.json"
PERIOD: Final = "period.json"
PLANS: Final = "plans/plans.json"
CORRECTIONS: Final = "corrections.csv"
OPEN_ITEMS: Final = "open-items.csv"
STRIPE: Final = "stripe.csv"
ACCRUED: Final = "accrued.csv"
PRICE_BOOKS: Final = "price-books"
# The least effort that pays for itself: a tenth larger than xz's own level 6, for half of its time and memory.
_XZ: Final = (
    {
        "id": lzma.FILTER_LZMA2, "preset": 1, "mode": lzma.MODE_NORMAL, "mf": lzma.MF_BT4, "nice_len": 32, "depth": 8,
        "dict_size": 4 * 1024 * 1024, "pb": 0,
    },
)  # fmt: skip


class PackNotWritten(Expected):
    """There is no room or no right to write the pack where it should be, or something else is there."""


class RowsWritten(NamedTuple):
    """What the rows of a pack come to."""

    totals: Totals
    chain_head: bytes
    price_versions: frozenset[str]


class PackWriter:
    """The files of one pack, in a folder that does not have its name yet."""

    def __init__(self, folder: Path, month: str) -> None:
        self._folder: Final = folder
        self._month: Final = month
        self._digests: Final[dict[str, str]] = {}

    async def write_rows(self, blocks: AsyncIterable[Sequence[PackRow]]) -> RowsWritten:
        """All rows, in the order of their ids; one block in memory at a time."""
        chain, totals, books = Chain(self._month), Totals(), set[str]()
        with (
            self._open(ROWS) as raw,
            lzma.LZMAFile(raw, "wb", format=lzma.FORMAT_XZ, filters=_XZ) as packed,
            self.csv(CHAIN) as links,
        ):
            links.writerow(("rows", "id", "chain"))
            async for rows in blocks:
                line = encode_rows(rows)
                packed.write(line + b"\n")
                chain.add(line, len(rows))
                links.writerow((chain.rows, rows[-1].id, chain.head.hex()))
                for row in rows:
                    totals.add(row)
                    books.add(row.price_version)
        return RowsWritten(totals, chain.head, frozenset(books - {""}))

    def write_json(self, name: str, value: Any) -> None:
        """One document."""
        self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """One file whole."""
        with self._open(name) as file:
            file.write(text.encode())

    async def write_csv(self, name: str, rows: AsyncIterable[Sequence[object]]) -> None:
        """A table, its names of columns first; no spreadsheet takes text of others in it for a formula."""
        with self.csv(name) as table:
            async for row in rows:
                table.writerow([_field(value) for value in row])

    @contextmanager
    def csv(self, name: str) -> Iterator[Any]:
        """A table that is written line by line."""
        with self._open(name) as file:
            text = TextIOWrapper(file, "utf-8", newline="")
            yield writer(text, lineterminator="\n")
            text.flush()
            text.detach()

    def finish(self, period: str, private_key: bytes | None) -> bytes:
        """Writes MANIFEST, and its signature where there is a key. Returns the digest of MANIFEST."""
        signed_by = None if private_key is None else public_key_of(private_key)
        manifest = write_manifest(Manifest(period, dict(self._digests), signed_by))
        for name, content in ((MANIFEST, manifest), (SIGNATURE, private_key and sign(manifest, private_key))):
            if content is not None:
                with self._open(name) as file:
                    file.write(content)
        return sha256(manifest).digest()

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        """A new file of the pack; its digest is kept, and its bytes are on the disk, once it ends."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            hashing = _Hashing(file)
            yield hashing  # type: ignore[misc]  # all of BinaryIO that its users call
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
        self._digests[name] = hashing.hexdigest()


def _field(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return escape_formula(value) if isinstance(value, str) else value


class _Hashing(RawIOBase):
    """A file that is only written to, and the digest of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file: Final = file
        self._digest: Final = sha256()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """All of it."""
        self._digest.update(data)
        return self._file.write(data)

    def hexdigest(self) -> str:
        """Of everything so far."""
        return self._digest.hexdigest()


@contextmanager
def new_folder(target: Path, own_digest: str | None) -> Iterator[Path]:
    """A folder beside `target` to write in. It gets that name when the block ends well, and is removed otherwise.

    What a killed process has left is removed first: a folder that was not ended, and a whole pack with the digest that
    this process's predecessor has noted, `own_digest`. Raises PackNotWritten.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        if own_digest is not None and digest_of(target) == own_digest:
            target.rename(partial)
            shutil.rmtree(partial)
        elif target.exists() or target.is_symlink():
            raise PackNotWritten(
                f"{target} is there already, and no close that was broken off left it: name another --output"
            )
        partial.mkdir()
        yield partial
        sync_folder(partial)
        partial.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise  # of a store, whose rows are written
        raise PackNotWritten(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def digest_of(folder: Path) -> str | None:
    """The digest of the pack that is there; None where there is none."""
    try:
        return sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return None
