"""Whose call it is: everything that must be known of it, and may refuse it, before it costs anything."""

from datetime import UTC, datetime

from aiohttp import web

from gateway.access.admission import Principal
from gateway.openai.request import Request
from gateway.proxy.dependencies import Dependencies
from gateway.usage.event import OpenRecord
from pricing.readers.text import storable


async def attribute_call(
    deps: Dependencies,
    request: web.BaseRequest,
    principal: Principal,
    endpoint: str,
    asked: Request,
    event_id: str,
    started_s: float,
    body_bytes: int,
) -> OpenRecord:
    """The OPEN of a call of `principal`. Raises ApiError when it refers to what is not the user's."""
    headers = request.headers
    named = headers.getall("X-Meeting-Id", [])
    meeting_id = await deps.meetings.of(named, principal.user_id) if named else None
    await deps.owners.check(asked.refers, principal.user_id)
    client_request_id = headers.get("X-Client-Request-Id")
    return OpenRecord(
        id=event_id,
        user_id=principal.user_id,
        endpoint=endpoint,
        model=asked.model,
        started_at=datetime.fromtimestamp(started_s, UTC),
        api_key_id=principal.api_key_id,
        meeting_id=meeting_id,
        service_tier=asked.service_tier,
        body_bytes=body_bytes,
        text_bytes=asked.text_bytes,
        media_parts=asked.media.parts,
        media_bytes=asked.media.inline,
        file_links=asked.media.links,
        output_cap=asked.output_cap,
        choices=asked.choices,
        stream=asked.stream,
        continues=asked.refers.read_too,
        cache_ttl=asked.cache_ttl,
        metadata={} if client_request_id is None else {"client_request_id": storable(client_request_id)},
    )
