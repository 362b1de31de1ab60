"""JSON that means one thing to everybody, and that PostgreSQL can keep as jsonb. Pure.

Refused: a name twice in one object, NaN and the infinities, numbers beyond a double, NUL and half surrogate pairs in
text, deep nesting. No message quotes the document.
"""

import json
import math
from typing import Any, Final, NoReturn

DEPTH_MAX: Final = 32
"""Objects and arrays within each other."""
DIGITS_MAX: Final = 300
"""Of an integer, its sign included; about what a double holds."""


def parse(raw: bytes) -> Any:
    """The value. Raises ValueError saying what is wrong, and never with what."""
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_members, parse_constant=_constant, parse_int=_integer
        )
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"it is nested more than {DEPTH_MAX} deep") from None
    check(value)
    return value


def check(value: Any, depth: int = DEPTH_MAX) -> None:
    """Raises ValueError when jsonb could not keep this JSON value, or it is nested more than `depth` deep."""
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError(f"it is nested more than {DEPTH_MAX} deep")
        for each in value.values() if isinstance(value, dict) else value:
            check(each, depth - 1)
        for name in value if isinstance(value, dict) else ():
            check(name)
    elif isinstance(value, str):
        if "\0" in value:
            raise ValueError("text in it has a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("text in it has half a surrogate pair") from None
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number in it is too large")


def merge_patch(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """JSON Merge Patch (RFC 7396): objects merge, null removes, anything else takes the place of what was there."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            before = result.get(name)
            result[name] = merge_patch(before if isinstance(before, dict) else {}, value)
        else:
            result[name] = value
    return result


def size(value: Any) -> int:
    """Bytes of the value as compact JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object in it has a name twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise ValueError("a number in it is too large")
    return int(digits)


def _constant(_name: str) -> NoReturn:
    raise ValueError("it has NaN or Infinity, which are not JSON")
