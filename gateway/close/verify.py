"""Checks a pack from its files alone: no database, no network, no setting.

First the bytes: MANIFEST, its signature, every digest. Where they hold, what the files say: the chain over the rows,
the totals, the bridge, and each row priced again from the pack's own price books and plans. Whoever changes a pack and
writes all digests again still has to find rows whose prices, sums and chain agree, and another signature.
"""

import csv
import json
import lzma
from collections.abc import Iterator, Mapping
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import pricing
from gateway.billing.bridge import BridgeLine, add_up, usd
from gateway.close import pack
from gateway.close.manifest import MANIFEST, SIGNATURE, Manifest, PackBroken, check_signature, read_manifest
from gateway.close.reprice import PackPrices
from gateway.close.rows import Chain, PackRow, decode_rows
from gateway.close.totals import NOBODY, Totals
from gateway.usage.plans import PlanError

PROBLEMS_MAX: Final = 20
"""Problems that are named; any number may be found."""


class PackVerdict(NamedTuple):
    """What was found."""

    period: str
    rows: int
    figures: Mapping[str, int]
    """How many rows were priced again, and how many could not be."""
    signed_by: str | None
    chain_head: str
    problems: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the pack is as it was written, and right."""
        return not self.problems


def verify(folder: Path, public_key: str | None = None) -> PackVerdict:
    """Everything about the pack in `folder`. With `public_key` (base64) it must be signed by that key.

    Raises OSError when the folder cannot be read.
    """
    try:
        manifest = _check_bytes(folder, public_key)
    except PackBroken as error:
        return PackVerdict("", 0, {}, None, "", (str(error),))
    problems = list(_changed_files(folder, manifest))
    if problems:
        return PackVerdict(manifest.period, 0, {}, manifest.signed_by, "", tuple(problems[:PROBLEMS_MAX]))
    return _check_content(folder, manifest)


def _check_bytes(folder: Path, public_key: str | None) -> Manifest:
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise PackBroken(f"there is no {MANIFEST}: this is not a pack") from error
    manifest = read_manifest(text)
    if public_key is not None and manifest.signed_by != public_key:
        raise PackBroken(f"it is signed by {manifest.signed_by or 'nobody'}, not by {public_key}")
    if manifest.signed_by is not None:
        signature = folder / SIGNATURE
        if not signature.is_file():
            raise PackBroken(f"{SIGNATURE} is missing")
        check_signature(text, signature.read_bytes(), manifest.signed_by)
    return manifest


def _changed_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    own = {MANIFEST} | ({SIGNATURE} if manifest.signed_by is not None else set())
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    yield from (f"{name} is missing" for name in sorted(manifest.files.keys() - there))
    yield from (f"{name} is not part of the pack" for name in sorted(there - manifest.files.keys() - own))
    for name in sorted(manifest.files.keys() & there):
        with (folder / name).open("rb") as file:
            if file_digest(file, "sha256").hexdigest() != manifest.files[name]:
                yield f"{name} was changed"


def _check_content(folder: Path, manifest: Manifest) -> PackVerdict:
    """What the files say, now that they are known to be those of the manifest."""
    checked = _Content(folder, manifest.period)
    try:
        checked.check()
    except (OSError, EOFError, lzma.LZMAError, ValueError, KeyError, TypeError, pricing.BookError, PlanError) as error:
        checked.problems.append(f"a file of the pack does not read: {type(error).__name__}")
    return PackVerdict(
        manifest.period,
        checked.chain.rows,
        checked.figures,
        manifest.signed_by,
        checked.chain.head.hex(),
        tuple(checked.problems[:PROBLEMS_MAX]),
    )


class _Content:
    """The content of one pack, read once."""

    def __init__(self, folder: Path, period: str) -> None:
        self._folder: Final = folder
        self._month: Final = period.partition(" ")[0]
        self._period: Final = period
        self.problems: Final[list[str]] = []
        self.chain: Final = Chain(self._month)
        self.totals: Final = Totals()
        self.figures: Mapping[str, int] = {}

    def check(self) -> None:
        """Fills in `problems`. Raises what files that do not read raise."""
        prices = PackPrices(self._price_books(), self._read_json(pack.PLANS))
        links, last_id = self._links(), ""
        for line in read_lines(self._folder):
            rows = decode_rows(line)
            self.chain.add(line, len(rows))
            for row in rows:
                self.totals.add(row)
                prices.take(row)
                self._check_row(row, last_id)
                last_id = row.id
            if next(links, None) != (self.chain.rows, last_id, self.chain.head.hex()):
                self._wrong(f"{pack.CHAIN}: the link after row {self.chain.rows} ({last_id}) is another one")
        if next(links, None) is not None:
            self._wrong(f"{pack.CHAIN} has links of rows that are not there")
        self.problems.extend(prices.problems())
        if unnamed := prices.books_missing - set(self._read_json(pack.PERIOD)["price_books_missing"]):
            self._wrong(f"price books are missing: {', '.join(sorted(unnamed))}")
        self.figures = prices.figures()
        self._check_totals()
        self._check_bridge()
        self._check_corrections()

    def _wrong(self, what: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(what)

    def _check_row(self, row: PackRow, last_id: str) -> None:
        if row.id <= last_id:
            self._wrong(f"{pack.ROWS}: {row.id} does not come after {last_id}")
        if f"{row.booked_at:%Y-%m}" != self._month:
            self._wrong(f"{pack.ROWS}: {row.id} was booked in another month")

    def _check_totals(self) -> None:
        said = self._read_json(pack.TOTALS)
        made = {**self.totals.to_json(), "chain_head": self.chain.head.hex(), "period": self._period}
        self.problems.extend(
            f"{pack.TOTALS}: {name} is not that of the rows" for name in made if said[name] != made[name]
        )
        if said.keys() != made.keys():
            self._wrong(f"{pack.TOTALS} has other fields than it should have")

    def _check_bridge(self) -> None:
        bridges = self._read_json(pack.BRIDGE)
        nano = self._read_lines(bridges["total"])
        self._check_payers(bridges["payers"])
        for key in ("cost", "billed"):
            if nano[key] != self.totals.sum(f"{key}_nano"):
                self._wrong(f"{pack.BRIDGE}: {key} is not that of the rows ({usd(self.totals.sum(f'{key}_nano'))})")
        if nano["unexplained"] and "bridge" not in self._read_json(pack.PERIOD)["accepted"]:
            self._wrong(f"{pack.BRIDGE}: {usd(nano['unexplained'])} are unexplained, and nobody has accepted that")

    def _check_payers(self, payers: list[dict[str, Any]]) -> None:
        """Each adds up, and each customer's is that of the rows; those whom nobody pays for are compared together."""
        said: dict[str, dict[str, int]] = {"cost": {}, "billed": {}}
        for payer in payers:
            nano, who = self._read_lines(payer), payer["id"] if payer["is_customer"] else NOBODY
            for key, sums in said.items():
                sums[who] = sums.get(who, 0) + nano[key]
        for key, sums in said.items():
            if {who: value for who, value in sums.items() if value} != self.totals.by_customer(f"{key}_nano"):
                self._wrong(f"{pack.BRIDGE}: {key} by customer is not that of the rows")

    def _read_lines(self, bridge: dict[str, Any]) -> dict[str, int]:
        """The lines of one bridge, which has to add up; those that were not read are left out."""
        lines = [BridgeLine(one["key"], "", one["nano"] and int(one["nano"]), one["is_sum"]) for one in bridge["lines"]]
        for wrong in add_up(lines):
            self._wrong(f"{pack.BRIDGE}: {wrong}")
        return {line.key: line.nano for line in lines if line.nano is not None}

    def _check_corrections(self) -> None:
        with (self._folder / pack.CORRECTIONS).open(encoding="utf-8", newline="") as file:
            rows = sum(int(line["rows"]) for line in csv.DictReader(file))
        if rows > self.totals.sum("rows") - self.totals.sum("calls"):
            self._wrong(f"{pack.CORRECTIONS} has more rows than the month has adjustments")

    def _links(self) -> Iterator[tuple[int, str, str]]:
        with (self._folder / pack.CHAIN).open(encoding="utf-8", newline="") as file:
            for rows, row_id, link in islice(csv.reader(file), 1, None):
                yield int(rows), row_id, link

    def _price_books(self) -> dict[str, dict[str, str]]:
        folders = sorted(self._folder.joinpath(pack.PRICE_BOOKS).iterdir())
        return {
            folder.name: {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.toml"))}
            for folder in folders
        }

    def _read_json(self, name: str) -> Any:
        return json.loads((self._folder / name).read_bytes())


def read_lines(folder: Path) -> Iterator[bytes]:
    """The rows of a pack in their canonical form, block by block."""
    with lzma.open(folder / pack.ROWS, "rb") as packed:
        for line in packed:
            yield line.removesuffix(b"\n")
