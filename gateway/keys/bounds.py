"""What a key may do, from options to what Unkey keeps of it and back: permissions, rate limits, the rest in its meta.

`key-requests` and `key-tokens` apply to each verification at Unkey as well: so the answer to one tells them, and Unkey,
which sees one verification for many calls, does not refuse before the gateway does. A limit of the key hides one of its
user that has the same name (Unkey's server source), hence these names. Calls at the same time are nothing that Unkey
could count, so they are in the meta (limits/key_limits.py reads all of it).
"""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from gateway.keys.described import DescribedKey, Limit
from gateway.keys.permissions import ENDPOINT, EVERYTHING, MODEL, allowed_of
from gateway.keys.unkey_admin import KeyChange
from gateway.kit.errors import OptionError
from gateway.openai.routing import CATALOGUE

PERMISSION: Final = re.compile(r"[A-Za-z0-9_:.*-]{1,128}", re.ASCII)
"""What Unkey takes as one."""
LIMIT_MAX: Final = 1_000_000_000
MINUTE_MS: Final = 60_000
BOUND: Final = "bound"
"""In the meta of a key that permissions bind: true. An answer that has none of them is then no free pass."""
REQUESTS: Final = ("key-requests", "requests")
"""The name of a key's limit on requests, and the one that it had before."""
TOKENS: Final = ("key-tokens", "tokens")
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

    def per_minute(self) -> dict[str, int]:
        """Its limits at Unkey."""
        limits = {REQUESTS[0]: self.requests, TOKENS[0]: self.tokens}
        return {name: most for name, most in limits.items() if most is not None}

    def meta(self) -> dict[str, Any]:
        """What is kept in the meta of the key."""
        marked = {} if allowed_of(self.permissions) is None else {BOUND: True}
        return marked if self.concurrent is None else marked | {CONCURRENT: self.concurrent}


class Changed(NamedTuple):
    """What to do at Unkey so that a key is bound otherwise."""

    fields: dict[str, Any]
    """Fields of a KeyChange."""
    permissions: frozenset[str]
    """All that the key is to have, those of its roles too."""
    add: tuple[str, ...]
    remove: tuple[str, ...]


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
        if not name or PERMISSION.fullmatch(MODEL + name) is None:
            raise OptionError(
                f"--models: {name!r} is not a name of a model that Unkey can hold (gpt-5, or gpt-5* for all that begin "
                f"so; letters, digits and _ : . * - only, {128 - len(MODEL)} at most)"
            )
    return tuple(MODEL + name for name in names)


def endpoint_permissions(text: str) -> tuple[str, ...]:
    """`chat,embeddings` as permissions. Raises OptionError."""
    names = _listed(text)
    for name in names:
        if name not in NAMES:
            raise OptionError(f"--endpoints: {name!r} is not one of {', '.join(sorted(NAMES))}")
    return tuple(ENDPOINT + name for name in names)


def limit(option: str, value: int) -> int:
    """A number that a limit can be. Raises OptionError naming `option`."""
    if not 0 < value <= LIMIT_MAX:
        raise OptionError(f"{option}: 1 to {LIMIT_MAX}, not {value}")
    return value


def changed(key: DescribedKey, change: BoundsChange) -> Changed:
    """What leaves everything else of the key as it is. Permissions are added and removed one by one: those of a key's
    roles stand among its own at Unkey (Unkey's server source), and would become its own if all were written back."""
    fields: dict[str, Any] = {}
    wanted = frozenset(_permissions(key, change))
    drop = {
        name
        for names, value in ((REQUESTS, change.requests), (TOKENS, change.tokens), ((CONCURRENT,), change.concurrent))
        for name in names
        if value is not UNSET
    }
    if drop:
        fields["ratelimits"] = (
            *(one for one in key.ratelimits if one.of == "key" and one.name not in drop),
            *(
                Limit(names[0], value, MINUTE_MS, True, "key")
                for names, value in ((REQUESTS, change.requests), (TOKENS, change.tokens))
                if isinstance(value, int)
            ),
        )
    meta = dict(key.meta)
    if change.concurrent is not UNSET:
        meta = _with(meta, CONCURRENT, change.concurrent)
    if change.models is not UNSET or change.endpoints is not UNSET:
        meta = _with(meta, BOUND, None if allowed_of(wanted) is None else True)
    if meta != key.meta:
        fields["meta"] = meta
    had = dict.fromkeys(key.permissions)
    add = tuple(name for name in dict.fromkeys(_permissions(key, change)) if name not in had)
    return Changed(fields, wanted, add, tuple(name for name in had if name not in wanted))


def is_unmarked(key: DescribedKey) -> bool:
    """Whether permissions bind a key that is not marked so: made elsewhere, or before there was a mark."""
    return allowed_of(key.permissions) is not None and key.meta.get(BOUND) is not True


def hidden_limits(key: DescribedKey) -> list[str]:
    """Names that a limit of the key and one of its user have in common: the user's does not hold for this key."""
    own, shared = ({one.name for one in key.ratelimits if one.of == of} for of in ("key", "identity"))
    return sorted(own & shared)


def hidden_warnings(key: DescribedKey) -> list[str]:
    """Sentences on limits of its user that do not hold for a key."""
    found = []
    for name in hidden_limits(key):
        option = "--rpm" if name in REQUESTS else "--tpm" if name in TOKENS else ""
        fix = f"`gateway keys set {key.key_id} {option} N` gives the key's another name" if option else "rename one"
        found.append(
            f"the limit {name!r} of the key hides the one of its user with the same name, which does not hold for this "
            f"key: {fix}"
        )
    return found


def warnings_of(key: DescribedKey) -> list[str]:
    """Sentences on what about a key at Unkey does not do what it seems to."""
    found = hidden_warnings(key)
    if is_unmarked(key):
        found.append(
            "permissions bind it, and it is not marked so: if Unkey left them out it could call everything; "
            "`gateway keys sync --repair` marks it"
        )
    return found


def carried(old: DescribedKey, new: DescribedKey) -> KeyChange | None:
    """What `new` lacks of the name, end, roles, limits and meta of `old`; None when it has them all. Permissions are
    another matter: which are its roles' is not told."""
    fields: dict[str, Any] = {
        name: getattr(old, name) for name in ("name", "expires_at", "meta") if getattr(old, name) != getattr(new, name)
    }
    if set(old.roles) != set(new.roles):
        fields["roles"] = old.roles
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
    concurrent = _limit(key, (CONCURRENT,), None) or (key.meta.get(CONCURRENT) if key is not None else None)
    return {
        "models": None if models is None else sorted(models),
        "endpoints": None if endpoints is None else sorted(endpoints),
        "requests_per_minute": _limit(key, REQUESTS, MINUTE_MS),
        "tokens_per_minute": _limit(key, TOKENS, MINUTE_MS),
        "concurrent": concurrent if isinstance(concurrent, int) and concurrent > 0 else None,
    }


def _limit(key: DescribedKey | None, names: tuple[str, ...], duration_ms: int | None) -> int | None:
    found = [
        one.limit
        for one in (() if key is None else key.ratelimits)
        if one.of == "key" and one.name in names and duration_ms in (None, one.duration_ms)
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


def _with(meta: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """`meta` with this field, or without it."""
    rest = {field: kept for field, kept in meta.items() if field != name}
    return rest if value is None else rest | {name: value}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _permission(name: str) -> str:
    if PERMISSION.fullmatch(name) is None:
        raise OptionError(f"--permission: {name!r} is not a permission (openai.chat, openai.model.gpt-5, usage.read)")
    return name
