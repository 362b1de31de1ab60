"""The families of OpenAI's API that are refused, each with its reason, and why a request is not served. Pure.

Reasons rest on openai-python 3.57 and OpenAI's published end dates (tests/golden/openai_endpoints.json).
"""

from typing import Final

from gateway.openai.families.catalogue import FAMILIES

_OWNER: Final = "the gateway keeps no record of whose"
_LATER: Final = "its cost arises after the call, where the gateway does not meter it"
_ADMIN: Final = "it administers the whole organization, which takes an admin key"
_ASSISTANTS: Final = "OpenAI shut the Assistants API down on 2026-08-26; use /v1/responses"
REFUSED: Final = {
    "agents": f"an agent runs without a client; {_LATER}",
    "assistants": _ASSISTANTS,
    "audio": "the gateway does not meter audio, which is billed by the second, character or token of sound",
    "batches": f"a batch runs later; {_LATER}",
    "chatkit": "a ChatKit session lets a browser spend at OpenAI without passing the gateway",
    "containers": f"a container is billed by time, and {_OWNER} it is",
    "content_provenance_checks": "OpenAI states neither a price nor a usage for it",
    "conversations": f"{_OWNER} a conversation is",
    "decisions": "the gateway does not read its requests yet",
    "evals": f"an eval runs later; {_LATER}",
    "files": f"{_OWNER} a file is",
    "fine_tuning": f"a fine-tuning job runs later; {_LATER}",
    "images": "the gateway does not meter images yet",
    "live": "a live session can bypass the gateway, which then cannot meter it",
    "organization": _ADMIN,
    "projects": _ADMIN,
    "realtime": "a realtime session can bypass the gateway, which then cannot meter it",
    "safety": "it is about the whole organization, not about one caller",
    "skills": f"{_OWNER} a skill is",
    "threads": _ASSISTANTS,
    "uploads": f"{_OWNER} an upload is",
    "vaults": f"{_OWNER} a vault is",
    "vector_stores": f"a vector store is billed by the day, and {_OWNER} it is",
    "videos": "OpenAI shut the Videos API down on 2026-09-24",
    "webhook_endpoints": "it belongs to the whole organization",
    "webhook_event_types": "it belongs to the whole organization",
}
"""First segment of the path → reason; it completes "… is not served: ", without the full stop."""


def why_unserved(method: str, path: str) -> str | None:
    """The reason why `method` and `path` (without a query) are refused; None when no family knows them."""
    if not path.startswith("/v1/"):
        return None
    path = path[3:]
    reason = REFUSED.get(path.split("/")[1])
    if reason is not None:
        return reason
    for family in FAMILIES:
        for each in family.unserved:
            if each.method == method and each.pattern.fullmatch(path) is not None:
                return each.reason
    return None
