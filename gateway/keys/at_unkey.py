"""Shared by the commands on keys: the connection to Unkey, paging through its keys, and the meaning of failures.

Decides nothing about a key.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from gateway.config.settings import Settings
from gateway.keys.described import DescribedKey
from gateway.keys.unkey_admin import KeyAdmin, Pause
from gateway.kit.errors import ConfigError, DependencyDown, OptionError

PAGES_MAX: Final = 100_000


class NothingChanged(OptionError):
    """A key cannot be changed so, and is as it was: trying again does not help. `meaning` adds nothing to it."""


@asynccontextmanager
async def unkey(settings: Settings, why: str, pause: Pause = asyncio.sleep) -> AsyncIterator[KeyAdmin]:
    """Unkey's administration. `why` ends the sentence of the ConfigError that names a missing UNKEY_ROOT_KEY; `pause`
    waits for what is not there yet."""
    if settings.unkey_root_key is None:
        raise ConfigError(f"UNKEY_ROOT_KEY is not set: {why}")
    root_key = settings.unkey_root_key.get_secret_value()
    async with KeyAdmin(root_key, base_url=settings.unkey_base_url, pause=pause) as admin:
        yield admin


@contextmanager
def meaning(sentence: str, *, right: str | None = None) -> Iterator[None]:
    """Adds to whatever fails in here what it means for the key; where the root key is refused, the `right` it lacks."""
    try:
        yield
    except NothingChanged:
        raise
    except DependencyDown as error:
        raise DependencyDown(error.what, f"{error.detail}. {sentence}") from error
    except ConfigError as error:
        needs = "" if right is None else f" (the root key needs {right})"
        raise ConfigError(f"{error}. {sentence}{needs}") from error
    except OptionError as error:
        raise OptionError(f"{error}. {sentence}") from error


async def key_pages(
    admin: KeyAdmin, api_id: str, *, external_id: str | None = None, page: int = 100
) -> AsyncIterator[list[DescribedKey]]:
    """Every key of an API, page by page. Raises what `keys_page` does; DependencyDown when the pages go in a circle."""
    cursor, before = None, set[str]()
    while True:
        found = await admin.keys_page(api_id, cursor=cursor, external_id=external_id, limit=page)
        yield found.keys
        cursor = found.cursor
        if cursor is None:
            return
        if cursor in before or len(before) >= PAGES_MAX:
            raise DependencyDown("unkey", f"its list of keys does not end: page {len(before) + 1} leads back")
        before.add(cursor)
