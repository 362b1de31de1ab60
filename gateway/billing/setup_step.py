"""One thing that has to be at Stripe: whether it is, and how it is made."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple


class Step(NamedTuple):
    """One thing that has to be there."""

    what: str
    state: str
    """`is there`, `missing` or `differs`."""
    details: tuple[str, ...]
    """What differs, or what is made: one line each."""
    make: Callable[[], Awaitable[Any]] | None
    """Makes it; None where nothing has to be made."""
