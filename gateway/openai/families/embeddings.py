"""Embeddings."""

from typing import Final

from gateway.openai.families.family import Family, serve

FAMILY: Final = Family(
    name="embeddings",
    endpoints=(serve("embeddings", "metered", "POST", r"/embeddings", price="embeddings", operation="embeddings"),),
    text_fields=("input",),
    prompt_fields=("input",),
    has_output=False,
)
