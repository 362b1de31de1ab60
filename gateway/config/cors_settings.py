"""Settings of calls from web pages."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic_settings import NoDecode

from gateway.config.values import items, origin


class CorsSettings(BaseModel, extra="forbid", frozen=True):
    """Calls from web pages; off by default, because a page reveals its key to every visitor (docs/clients.md)."""

    origins: Annotated[tuple[Annotated[str, AfterValidator(origin)], ...], NoDecode, BeforeValidator(items)] = ()
    """Origins whose pages may call, as `["https://app.example"]`; `["*"]`: any. In the environment also `a,b`."""
