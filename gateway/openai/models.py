"""Names of OpenAI's models."""

import re
from typing import Final

_SNAPSHOT: Final = re.compile(r"-\d{4}-\d{2}-\d{2}")


def is_fine_tuned(model: str) -> bool:
    """Whether a model was made for one customer, and its name tells for whom: `ft:gpt-4o:acme::id`, before 2023-08
    `davinci:ft-acme-…` (OpenAI's docs)."""
    return ":" in model and (model[:3].lower() == "ft:" or ":ft-" in model.lower())


def is_model(model: str, wanted: str) -> bool:
    """Whether `model` is the wanted one or a dated snapshot of it."""
    return model == wanted or (model.startswith(wanted) and _SNAPSHOT.fullmatch(model, len(wanted)) is not None)
