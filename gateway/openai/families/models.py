"""The list of models. What a key is shown of it is in access/served_models.py."""

from typing import Final

from gateway.openai.families.family import Family, refuse, serve

_MODEL: Final = r"/models/[A-Za-z0-9][A-Za-z0-9_\-.:]{0,199}"
FAMILY: Final = Family(
    name="models",
    endpoints=(serve("models", "free", "GET", r"/models"), serve("models.get", "free", "GET", _MODEL)),
    unserved=(refuse("DELETE", _MODEL, "a model belongs to the whole organization"),),
)
