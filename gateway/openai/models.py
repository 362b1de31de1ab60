"""Names of OpenAI's models."""

import re
from typing import Final

_SNAPSHOT: Final = re.compile(r"-\d{4}-\d{2}-\d{2}")


def is_model(model: str, wanted: str) -> bool:
    """Whether `model` is the wanted one or a dated snapshot of it."""
    return model == wanted or (model.startswith(wanted) and _SNAPSHOT.fullmatch(model, len(wanted)) is not None)
