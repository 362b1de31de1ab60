"""Objects at OpenAI that belong to users: responses, and items of them. The batch writer notes them with their rows."""

from collections.abc import Sequence
from typing import Final

from gateway.stores.postgres import Table
from pricing.readers.text import storable

# The users that these objects at OpenAI belong to.
_OWNERS: Final = """
select object_id, user_id::text from public.upstream_objects where object_id = any($1::text[]) and deleted_at is null
"""


class UpstreamObjects(Table):
    """Raises DependencyDown("postgres"), after two seconds at the latest."""

    async def owners(self, object_ids: Sequence[str]) -> dict[str, str]:
        """Of these objects at OpenAI, those whose owner is known and which are not deleted, with the user id."""
        rows = await self._look_up(_OWNERS, [storable(object_id) for object_id in object_ids])
        return {row[0]: row[1] for row in rows}
