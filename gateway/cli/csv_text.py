"""Text of others in a CSV file: it must not become a formula where the file is opened, nor steer a terminal."""

import re
from typing import Final

from gateway.cli.text import legible_lines

# A spreadsheet takes a cell that begins so for a formula, full-width forms too; and where its list separator is not
# the comma, a cell may begin in the middle of a field.
_SIGNS: Final = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_FORMULA: Final = re.compile(rf"\A(?=[{_SIGNS}\t\r\n])|(?<=[;\t\r\n])(?=[{_SIGNS}])")


def text_field(text: str | None) -> str:
    """A field of text that others chose: no formula, and nothing that steers a terminal; its lines stay."""
    return legible_lines(escape_formula(text))


def escape_formula(text: str | None) -> str:
    """Text with an apostrophe before whatever a spreadsheet would take for a formula; None is empty."""
    return "" if text is None else _FORMULA.sub("'", text)
