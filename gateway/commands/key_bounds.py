"""What a key may do, from options to what Unkey keeps of it: permissions, rate limits, and the rest in its meta.

`requests` and `tokens` apply to each verification at Unkey as well: so the answer to one tells them, and Unkey, which
sees one verification for many calls, does not refuse before the gateway does. Calls at the same time are nothing that
Unkey could count, so they are in the meta (flows/proxy/terms.py reads all of it).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from gateway.core.endpoints import CATALOGUE
from gateway.core.errors import OptionError
from gateway.core.permissions import ENDPOINT, MODEL

NAME_MAX: Final = 200
LIMIT_MAX: Final = 1_000_000_000
NAMES: Final = frozenset(part for entry in CATALOGUE for part in (entry.name, entry.name.partition(".")[0]))


class KeyBounds(NamedTuple):
    """What binds a new key."""

    permissions: tuple[str, ...] = ()
    requests: int | None = None
    """Per minute."""
    tokens: int | None = None
    """Per minute."""
    concurrent: int | None = None


def key_bounds(
    *,
    models: str | None = None,
    endpoints: str | None = None,
    permissions: Iterable[str] = (),
    rpm: int | None = None,
    tpm: int | None = None,
    concurrent: int | None = None,
) -> KeyBounds:
    """From options; lists are separated by commas. Raises OptionError."""
    wanted = [_permission(name.strip()) for name in permissions]
    for name in _listed(models):
        if not 0 < len(name) <= NAME_MAX or not name.isprintable() or " " in name:
            raise OptionError(f"--models: {name!r} is no name of a model (gpt-5, or gpt-5* for all that begin so)")
        wanted.append(MODEL + name)
    for name in _listed(endpoints):
        if name not in NAMES:
            raise OptionError(f"--endpoints: {name!r} is none of {', '.join(sorted(NAMES))}")
        wanted.append(ENDPOINT + name)
    for option, value in (("--rpm", rpm), ("--tpm", tpm), ("--concurrent", concurrent)):
        if value is not None and not 0 < value <= LIMIT_MAX:
            raise OptionError(f"{option}: 1 to {LIMIT_MAX}, not {value}")
    return KeyBounds(tuple(dict.fromkeys(wanted)), rpm, tpm, concurrent)


def _listed(text: str | None) -> list[str]:
    return [] if text is None else [part.strip() for part in text.split(",")]


def _permission(name: str) -> str:
    if not 0 < len(name) <= NAME_MAX or not all(part.isalnum() or part in "._:-*" for part in name):
        raise OptionError(f"--permission: {name!r} is no permission (openai.chat, openai.model.gpt-5, usage.read)")
    return name
