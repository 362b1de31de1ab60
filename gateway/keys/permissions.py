"""What a key may call: Unkey permissions as endpoints and models. Pure.

`openai.*` allows everything. `openai.<endpoint>` allows an endpoint of the catalogue (openai/routing) with what
belongs to it: `openai.responses` allows `responses.compact` and `responses.get` as well. `openai.model.<model>` allows
a model and its dated snapshots, `openai.model.gpt-5*` all whose names begin so. A key is bound by a kind only when it
has some of it: one with models and no endpoints may call every endpoint with them, one with neither may do everything.
Except a key for rooms (`rooms.read`, `rooms.*`) or corrections (`corrections.approve`): it belongs to a backend or an
operator, and needs a permission to call OpenAI.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from gateway.openai.models import is_fine_tuned, is_model

EVERYTHING: Final = "openai.*"
MODEL: Final = "openai.model."
ENDPOINT: Final = "openai."
ROOMS: Final = "rooms."
CORRECTIONS: Final = "corrections."


class Allowed(NamedTuple):
    """What a bound key may call; None is everything of that kind."""

    endpoints: frozenset[str] | None
    models: frozenset[str] | None

    def endpoint(self, name: str) -> bool:
        """Whether it may call this endpoint of the catalogue."""
        return self.endpoints is None or name in self.endpoints or name.partition(".")[0] in self.endpoints

    def model(self, name: str) -> bool:
        """Whether it may ask for this model; as it was asked for, in its very case."""
        if self.models is None:
            return True
        return any(
            name.startswith(wanted[:-1]) if wanted.endswith("*") else is_model(name, wanted) for wanted in self.models
        )


def may_call_model(allowed: Allowed | None, name: str) -> bool:
    """Whether a key may ask for this model. A fine-tuned one needs a permission that names it, `*` at the end included
    where what is before it says that it is fine-tuned: it belongs to one customer."""
    if not is_fine_tuned(name):
        return allowed is None or allowed.model(name)
    named = () if allowed is None or allowed.models is None else allowed.models
    return Allowed(None, frozenset(filter(is_fine_tuned, named))).model(name)


def allowed_of(permissions: Iterable[str]) -> Allowed | None:
    """What these permissions allow; None when they bind nothing. Those of others (`usage.read`) do not matter here."""
    bounds = {name for name in permissions if _binds(name)}
    ours = {name for name in bounds if name.startswith(ENDPOINT)}
    if not bounds or EVERYTHING in ours:
        return None
    if not ours:
        return Allowed(frozenset(), None)
    models = frozenset(name.removeprefix(MODEL) for name in ours if name.startswith(MODEL))
    endpoints = frozenset(name.removeprefix(ENDPOINT) for name in ours if not name.startswith(MODEL))
    return Allowed(endpoints or None, models or None)


def are_told(permissions: Iterable[str]) -> bool:
    """Whether any of these binds: a key that is bound has some, or they were left out."""
    return any(map(_binds, permissions))


def _binds(name: str) -> bool:
    return name.startswith((ENDPOINT, ROOMS, CORRECTIONS))


def granted_of(permissions: Iterable[str]) -> frozenset[str]:
    """Those that are about something beside OpenAI's API: `rooms.read`, `rooms.*`. Unlike ours they only ever add."""
    return frozenset(name for name in permissions if not name.startswith(ENDPOINT))
