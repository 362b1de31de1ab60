"""What a file of this folder declares: one family of OpenAI's endpoints. Pure.

Everything that the gateway must know of a family is here, so that routing, reading of requests, checks of ownership
and estimates hold no list of families of their own.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from pricing.stream import Shape

Kind = Literal["metered", "free", "counted", "owned"]
"""`metered`: costs money, has a row. `free`: no row. `counted`: free, but its body is that of a metered call and may
name what belongs to a user. `owned`: about an object that belongs to one user."""
ID: Final = r"[A-Za-z0-9_\-]{1,200}"
"""An id in a path."""


class Endpoint(NamedTuple):
    """One method and path that is served."""

    name: str
    """The ledger's `endpoint`. It begins with the name of its family, up to the first dot."""
    kind: Kind
    method: str
    pattern: re.Pattern[str]
    """The whole path, without `/v1`. An object's id is its group `id`."""
    stream: Shape | None = None
    """The wire shape of its event stream; None when it never streams."""
    price: str | None = None
    """What a metered call is priced as: a key of `PRICE_FAMILIES` in pricing/cost.py."""
    settles_later: bool = False
    """Whether OpenAI may keep the answer under its id, so that a later question can turn an estimate into an exact
    figure. That correction is a row of its own, which adjusts the first."""
    operation: str | None = None
    """Its name among OpenTelemetry's operations of generative AI; None when it has none."""


class Unserved(NamedTuple):
    """A method and path of a served family that is refused."""

    method: str
    pattern: re.Pattern[str]
    reason: str
    """Completes "… is not served: ", without the full stop."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One family. A field that is left out means that its endpoints have nothing of the kind."""

    name: str
    endpoints: tuple[Endpoint, ...]
    unserved: tuple[Unserved, ...] = ()

    text_fields: tuple[str, ...] = ()
    """Fields whose bytes bound what the model reads."""
    prompt_fields: tuple[str, ...] = ()
    """Fields whose text an estimate counts, in this order."""
    cap_fields: tuple[str, ...] = ()
    """Fields that cap the output of one answer, tokens."""
    cap_unless_set: int | None = None
    """The cap of a request that sets none; None when only the model bounds it."""
    has_output: bool = True
    """Whether the model writes tokens."""
    choice_fields: tuple[str, ...] = ()
    """Fields that say how many answers are written; the largest counts. Without any, it is one."""
    usage_on_request: bool = False
    """Whether a stream says its usage only when `stream_options.include_usage` asks for it."""

    refused: Mapping[str, str] = {}
    """Field → what it asks for, which cannot be metered or whose owner is not known. null and false ask for nothing."""
    refused_if_true: Mapping[str, str] = {}
    """The same for fields that are booleans, where any other type is an error."""
    voice_field: str | None = None
    """A field that may name a voice somebody made."""
    client_tools: frozenset[str] = frozenset()
    """Tools that the client runs, besides `function` and `custom`."""

    referring_fields: tuple[str, ...] = ()
    """Fields whose parts may name an object of OpenAI's."""
    reference_marks: tuple[bytes, ...] = ()
    """Bytes without which these fields cannot name one, however their letters are written: lower-case letters and `_`,
    which JSON may also spell as escapes."""
    has_items: bool = False
    """Whether these fields hold items, which may refer to items of earlier answers and bring tools."""
    user_fields: Mapping[str, tuple[str, ...]] = {}
    """Endpoint → fields that say, in OpenAI's words, whose call it is, and which a setting makes the user's own."""
    previous_field: str | None = None
    """A field that names the answer which the request continues."""


def serve(
    name: str,
    kind: Kind,
    method: str,
    path: str,
    stream: Shape | None = None,
    *,
    price: str | None = None,
    settles_later: bool = False,
    operation: str | None = None,
) -> Endpoint:
    """An endpoint; `path` is a pattern."""
    return Endpoint(name, kind, method, re.compile(path), stream, price, settles_later, operation)


def refuse(method: str, path: str, reason: str) -> Unserved:
    """A refused method and path; `path` is a pattern."""
    return Unserved(method, re.compile(path), reason)
