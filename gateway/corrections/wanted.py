"""Corrections as people write them: options of a command, or a CSV file. Pure."""

import csv
import io
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from gateway.corrections.change import WantedRow
from gateway.kit.errors import OptionError

ROWS_MAX: Final = 10_000
"""Rows in one file: all of them are corrected in one transaction."""
USD_MAX: Final = 1_000_000
"""Of one row."""
COLUMNS: Final = ("row", "cost_usd", "billed_usd", "void")
_YES: Final = ("yes", "true", "1")
_NO: Final = ("", "no", "false", "0")
_NANO: Final = Decimal("1e-9")
# Spreadsheets write small amounts with an exponent. Decimal alone takes more: underscores, and digits of other scripts.
_AMOUNT: Final = re.compile(r"[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})([eE][+-]?\d{1,2})?", re.ASCII)


def parse_wanted(ref: str, cost: str | None, billed: str | None, *, void: bool, where: str = "") -> WantedRow:
    """What is wanted of one row. Raises OptionError; `where` stands before what it says."""
    ref = ref.strip()
    if not ref or len(ref) > 255 or not ref.isprintable():
        raise OptionError(f"{where}row: the id of a ledger row, or of its request or response at OpenAI")
    if void and (cost is not None or billed is not None):
        raise OptionError(f"{where}void: it costs nothing then; leave the amounts out")
    if not void and cost is None and billed is None:
        raise OptionError(f"{where}nothing to correct: give a cost, what is billed, or void")
    cost_nano = None if cost is None else parse_nano(cost, f"{where}cost")
    billed_nano = None if billed is None else parse_nano(billed, f"{where}billed")
    return WantedRow(ref, cost_nano, billed_nano, void)


def parse_nano(text: str, name: str, *, least: int = 0, most: int = USD_MAX) -> int:
    """An amount in USD with nine decimals at most, as nano-USD. Raises OptionError."""
    if not _AMOUNT.fullmatch(text.strip()):
        raise OptionError(f"{name}: {text!r} is not an amount in USD (like 5 or 0.25)")
    usd = Decimal(text.strip())
    if not least <= usd <= most:
        raise OptionError(f"{name}: {least} to {most} USD")
    if usd != usd.quantize(_NANO):
        raise OptionError(f"{name}: at most nine decimals, because amounts are exact to the nano-dollar")
    return int(usd.scaleb(9))


def parse_file(data: bytes) -> list[WantedRow]:
    """The lines of a CSV file with the columns `row` and any of `cost_usd`, `billed_usd`, `void`.

    Raises OptionError that names the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OptionError("--file: it is not UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    found: list[WantedRow] = []
    try:
        reader.fieldnames = _columns(reader.fieldnames or ())
        for cells in reader:
            found.append(_line(cells, f"--file, line {reader.line_num}: "))
            if len(found) > ROWS_MAX:
                raise OptionError(f"--file: more than {ROWS_MAX:,} rows; give it in parts")
    except csv.Error as error:
        raise OptionError(f"--file, after line {reader.line_num}: {error}") from None
    if not found:
        raise OptionError("--file: it has no row")
    return found


def _columns(names: Sequence[str]) -> list[str]:
    plain = [name.strip().lower() for name in names]
    unknown = [name for name in plain if name not in COLUMNS]
    if "row" not in plain or unknown or len(set(plain)) != len(plain):
        raise OptionError(f"--file: its first line names the columns: {', '.join(COLUMNS)}; row is needed")
    return plain


def _line(cells: dict[str, str], where: str) -> WantedRow:
    if None in cells or None in cells.values():
        raise OptionError(f"{where}it has more or fewer cells than the first line")
    void = cells.get("void", "").strip().lower()
    if void not in (*_YES, *_NO):
        raise OptionError(f"{where}void: yes or no")
    amounts = [cells.get(name, "").strip() or None for name in ("cost_usd", "billed_usd")]
    return parse_wanted(cells["row"], *amounts, void=void in _YES, where=where)
