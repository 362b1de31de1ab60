"""OpenAI's data-residency regions, as far as they change a price (+10 %, OpenAI's pricing page). Pure."""

from typing import Final
from urllib.parse import urlsplit

REGIONS: Final = ("us", "eu", "ae", "au", "in", "jp")


def region_of(base_url: str) -> str | None:
    """The region whose host serves `base_url` (`https://eu.api.openai.com/v1` → `eu`), or None for the global one."""
    host = urlsplit(base_url).hostname or ""
    prefix, _, rest = host.partition(".")
    return prefix if rest == "api.openai.com" and prefix in REGIONS else None
