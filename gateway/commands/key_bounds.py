"""What a key may do, from options to what Unkey keeps of it and back: permissions, rate limits, the rest in its meta.

`requests` and `tokens` apply to each verification at Unkey as well: so the answer to one tells them, and Unkey, which
sees one verification for many calls, does not refuse before the gateway does. Calls at the same time are nothing that
Unkey could count, so they are in the meta (flows/proxy/terms.py reads all of it).
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from gateway.core.endpoints import CATALOGUE
from gateway.core.errors import OptionError
from gateway.core.permissions import ENDPOINT, EVERYTHING, MODEL, allowed_of
from gateway.edges.key_admin import DescribedKey, KeyChange, Limit

NAME_MAX: Final = 200
LIMIT_MAX: Final = 1_000_000_000
MINUTE_MS: Final = 60_000
CONCURRENT: Final = "concurrent"
"""In the meta of a key; also the name of a limit that means the same (docs/limits.md)."""
NAMES: Final = frozenset(part for entry in CATALOGUE for part in (entry.name, entry.name.partition(".")[0]))


class KeyBounds(NamedTuple):
    """What binds a new key."""

    permissions: tuple[str, ...] = ()
    requests: int | None = None
    """Per minute."""
    tokens: int | None = None
    """Per minute."""
    concurrent: int | None = None


class BoundsChange(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes different for a key: UNSET stays as it is, None binds it no longer."""

    models: tuple[str, ...] | UnsetType | None = UNSET
    """As permissions."""
    endpoints: tuple[str, ...] | UnsetType | None = UNSET
    requests: int | UnsetType | None = UNSET
    tokens: int | UnsetType | None = UNSET
    concurrent: int | UnsetType | None = UNSET

    def __bool__(self) -> bool:
        return any(getattr(self, name) is not UNSET for name in self.__struct_fields__)


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
    wanted += () if models is None else model_permissions(models)
    wanted += () if endpoints is None else endpoint_permissions(endpoints)
    for option, value in (("--rpm", rpm), ("--tpm", tpm), ("--concurrent", concurrent)):
        if value is not None:
            limit(option, value)
    return KeyBounds(tuple(dict.fromkeys(wanted)), rpm, tpm, concurrent)


def model_permissions(text: str) -> tuple[str, ...]:
    """`gpt-5,gpt-4.1*` as permissions. Raises OptionError."""
    names = _listed(text)
    for name in names:
        if not 0 < len(name) <= NAME_MAX or not name.isprintable() or " " in name:
            raise OptionError(f"--models: {name!r} is no name of a model (gpt-5, or gpt-5* for all that begin so)")
    return tuple(MODEL + name for name in names)


def endpoint_permissions(text: str) -> tuple[str, ...]:
    """`chat,embeddings` as permissions. Raises OptionError."""
    names = _listed(text)
    for name in names:
        if name not in NAMES:
            raise OptionError(f"--endpoints: {name!r} is none of {', '.join(sorted(NAMES))}")
    return tuple(ENDPOINT + name for name in names)


def limit(option: str, value: int) -> int:
    """A number that a limit can be. Raises OptionError naming `option`."""
    if not 0 < value <= LIMIT_MAX:
        raise OptionError(f"{option}: 1 to {LIMIT_MAX}, not {value}")
    return value


def changed(key: DescribedKey, change: BoundsChange) -> dict[str, Any]:
    """Fields of a KeyChange that leave everything else of the key as it is."""
    fields: dict[str, Any] = {}
    if change.models is not UNSET or change.endpoints is not UNSET:
        fields["permissions"] = tuple(dict.fromkeys(_permissions(key, change)))
    drop = {
        name
        for name, value in (("requests", change.requests), ("tokens", change.tokens), (CONCURRENT, change.concurrent))
        if value is not UNSET
    }
    if drop:
        fields["ratelimits"] = (
            *(one for one in key.ratelimits if one.of == "key" and one.name not in drop),
            *(
                Limit(name, value, MINUTE_MS, True, "key")
                for name, value in (("requests", change.requests), ("tokens", change.tokens))
                if isinstance(value, int)
            ),
        )
    if change.concurrent is not UNSET:
        rest = {name: value for name, value in key.meta.items() if name != CONCURRENT}
        fields["meta"] = rest if change.concurrent is None else rest | {CONCURRENT: change.concurrent}
    return fields


def carried(old: DescribedKey, new: DescribedKey) -> KeyChange | None:
    """What `new` lacks of the name, end, permissions, roles, limits and meta of `old`; None when it has them all."""
    fields: dict[str, Any] = {
        name: getattr(old, name) for name in ("name", "expires_at", "meta") if getattr(old, name) != getattr(new, name)
    }
    for name in ("permissions", "roles"):
        if set(getattr(old, name)) != set(getattr(new, name)):
            fields[name] = getattr(old, name)
    own, its = (tuple(one for one in key.ratelimits if one.of == "key") for key in (old, new))
    if set(own) != set(its):
        fields["ratelimits"] = own
    if not new.enabled:
        fields["enabled"] = True
    return KeyChange(**fields) if fields else None


def plain_bounds(key: DescribedKey | None) -> dict[str, Any]:
    """What binds a key, for JSON: names without their prefixes, null where nothing does (or nothing is known)."""
    allowed = None if key is None else allowed_of(key.permissions)
    models, endpoints = (None, None) if allowed is None else (allowed.models, allowed.endpoints)
    concurrent = _limit(key, CONCURRENT, None) or (key.meta.get(CONCURRENT) if key is not None else None)
    return {
        "models": None if models is None else sorted(models),
        "endpoints": None if endpoints is None else sorted(endpoints),
        "requests_per_minute": _limit(key, "requests", MINUTE_MS),
        "tokens_per_minute": _limit(key, "tokens", MINUTE_MS),
        "concurrent": concurrent if isinstance(concurrent, int) and concurrent > 0 else None,
    }


def _limit(key: DescribedKey | None, name: str, duration_ms: int | None) -> int | None:
    found = [
        one.limit
        for one in (() if key is None else key.ratelimits)
        if one.of == "key" and one.name == name and duration_ms in (None, one.duration_ms)
    ]
    return min(found, default=None)


def _permissions(key: DescribedKey, change: BoundsChange) -> Iterable[str]:
    """Those that are not of a kind that changes, and then the new ones."""
    for name in key.permissions:
        # One that allows everything would make whatever else is said here mean nothing.
        changes = change.models if name.startswith(MODEL) else change.endpoints if name.startswith(ENDPOINT) else UNSET
        if changes is UNSET and not (name == EVERYTHING and (change.models or change.endpoints)):
            yield name
    for given in (change.models, change.endpoints):
        yield from () if given is UNSET else given or ()


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _permission(name: str) -> str:
    if not 0 < len(name) <= NAME_MAX or not all(part.isalnum() or part in "._:-*" for part in name):
        raise OptionError(f"--permission: {name!r} is no permission (openai.chat, openai.model.gpt-5, usage.read)")
    return name
