"""Which members of OpenAI's list of models a key is shown: those that it may call and that the gateway serves. Pure.

A fine-tuned model (`ft:…`) belongs to one customer, and its name tells whose. It is shown only to a key with a
permission that names it.
"""

import re
from typing import Final

import msgspec

from gateway.keys.permissions import Allowed, may_call_model
from gateway.openai.models import is_fine_tuned

_UNSERVED: Final = re.compile(
    r"whisper-|tts-|dall-e-|sora-|gpt-image-|chatgpt-image-|gpt-realtime|gpt-live"
    r"|.*-(?:realtime|transcribe|tts|translate)(?:-|$)"
)
"""Names of models that only endpoints take which the gateway does not serve: audio in and out, images, video, realtime
(GET /v1/models, recorded). A name that nobody has seen yet is shown: it may be a new one for chat."""


class _Member(msgspec.Struct):
    id: str


class _Listed(msgspec.Struct):
    data: list[msgspec.Raw]


_read_list: Final = msgspec.json.Decoder(_Listed).decode
_read_member: Final = msgspec.json.Decoder(_Member).decode


def is_shown(name: str, allowed: Allowed | None) -> bool:
    """Whether a key that is bound by `allowed` is told of this model."""
    is_served = is_fine_tuned(name) or _UNSERVED.match(name) is None
    return is_served and may_call_model(allowed, name)


def shown_list(body: bytes, allowed: Allowed | None) -> bytes:
    """OpenAI's answer without the members that are not shown, every other byte as it was.

    Raises msgspec.DecodeError when it is not a list of models: nobody can say then what is in it.
    """
    members = [bytes(raw) for raw in _read_list(body).data]
    keep = [is_shown(_read_member(member).id, allowed) for member in members]
    if all(keep):
        return body
    before: list[bytes] = []
    at = 0
    for member in members:
        start = body.index(member, at)
        before.append(body[at:start])
        at = start + len(member)
    kept = [index for index, shown in enumerate(keep) if shown]
    pieces = [before[0]]
    for index in kept:
        pieces += [before[index] if index != kept[0] else b"", members[index]]
    return b"".join([*pieces, body[at:]])
