"""The settings of a child, as its parent hands them over: a line of JSON on its standard input.

Not by the environment, which others of the same user can read in /proc, and not by the file that GATEWAY_CONFIG names,
which has everybody's secrets in it. A child gets only those that its kind needs (gateway/config/secret_table.py).
"""

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from gateway.config.database_logins import PROCESSES, with_own_login
from gateway.config.secret_table import NEEDED_BY, UNUSED, Kind, file_variable, variable
from gateway.config.settings import Settings

STDIN: Final = 0
PIECE_BYTES: Final = 64 * 1024


def encode_settings(settings: Settings, kind: Kind) -> bytes:
    """The line for a child of this kind."""
    given = _plain(with_own_login(settings, kind) if kind in PROCESSES else settings)
    for name, kinds in NEEDED_BY.items():
        if kind not in kinds:
            section, _, field = name.rpartition(".")
            del (given[section] if section else given)[field]
    return json.dumps(given).encode() + b"\n"


def decode_settings(line: bytes) -> Settings:
    """What the parent has encoded."""
    return Settings(**json.loads(line))


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that is handed its settings."""
    hidden = {variable(name) for name in NEEDED_BY} | {file_variable(name) for name in NEEDED_BY}
    return {name: value for name, value in environ.items() if name.upper() not in {*hidden, *UNUSED, "GATEWAY_CONFIG"}}


class HandedLines:
    """Cuts what comes over standard input into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def read_first(self) -> bytes:
        """Waits for the first line. Raises EOFError when the parent is gone before."""
        while b"\n" not in self._rest:
            piece = os.read(STDIN, PIECE_BYTES)
            if not piece:
                raise EOFError
            self._rest += piece
        first, _, self._rest = self._rest.partition(b"\n")
        return first

    def take(self, piece: bytes) -> list[bytes]:
        """The lines that are whole now."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return lines


def _plain(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case BaseModel():
            return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        case tuple():
            return [_plain(each) for each in value]
        case Decimal() | Path() | IPv4Network() | IPv6Network():
            return str(value)
    return value
