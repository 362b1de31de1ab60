"""The families that are served, and how to find one by the name of an endpoint. Pure.

A name may come from an older or newer journal or row, so one that is not known here is not an error.
"""

from typing import Final

from gateway.openai.families import chat, completions, embeddings, models, moderations, responses, traces
from gateway.openai.families.family import Endpoint, Family

FAMILIES: Final = (
    chat.FAMILY,
    completions.FAMILY,
    responses.FAMILY,
    embeddings.FAMILY,
    moderations.FAMILY,
    models.FAMILY,
    traces.FAMILY,
)
FAMILY_OF: Final[dict[str, Family]] = {endpoint.name: family for family in FAMILIES for endpoint in family.endpoints}
"""By the name of an endpoint."""
ENDPOINT_OF: Final[dict[str, Endpoint]] = {
    endpoint.name: endpoint for family in FAMILIES for endpoint in family.endpoints
}
SETTLES_LATER: Final = tuple(name for name, endpoint in ENDPOINT_OF.items() if endpoint.settles_later)
PROMPT_FIELDS: Final = tuple(dict.fromkeys(name for family in FAMILIES for name in family.prompt_fields))
"""The prompt fields of every family, for a body whose family is not known."""


def price_family(name: str) -> str:
    """What a call of this endpoint is priced as; its own name when it is not known, for which there is no price."""
    endpoint = ENDPOINT_OF.get(name)
    return name if endpoint is None or endpoint.price is None else endpoint.price


def has_output(name: str) -> bool:
    """Whether calls of this endpoint have output tokens; True when it is not known, so that none is left out."""
    family = FAMILY_OF.get(name)
    return family is None or family.has_output
