"""Which tools a request may bring: those that the client runs itself, because they cost tokens only. Pure.

Tools that OpenAI runs cost fees, or use files and containers that may be another tenant's, so they are 400
`unsupported_parameter`. The shapes are those of openai-python 3.54 (`types/responses/tool_param.py`,
`types/chat/chat_completion_tool_union_param.py`).
"""

from typing import Any, Final

import msgspec

from gateway.kit.errors import ApiError
from gateway.openai.families.family import Family
from gateway.openai.json_fields import DuplicateField, document, fields
from gateway.openai.request_errors import bad_request, duplicate

TOOLS_MAX: Final = 1024
"""Tools of one request; OpenAI takes 128 (OpenAI's docs)."""
TOOL_DEPTH_MAX: Final = 8
"""Namespaces within each other; in OpenAI's own types there is one."""
OF_CLIENT: Final = frozenset({"function", "custom"})
"""Always run by the client, whatever the family."""
_ONLY: Final = {
    "shell": "with 'environment': {'type': 'local'}, where your program runs the commands",
    "tool_search": "with 'execution': 'client', where your program searches",
}
_READ: Final = ("type", "tools", "environment", "execution", "skills")
"""Members that are judged, so that none may come twice."""
OBJECT_IDS: Final = {
    "file_id": "file ids",
    "file_ids": "file ids",
    "container_id": "container ids",
    "skill_id": "skill ids",
    "approval_request_id": "approvals of tool calls",
}
"""Members that name an object at OpenAI, which may be somebody else's."""
_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw])


def refuse_hosted_tools(family: Family, raw: bytes) -> None:
    """`raw`: the request's `tools`. Raises ApiError 400 unless every tool is run by the client."""
    try:
        tools = _raw_list.decode(raw)
    except (ValueError, RecursionError):
        raise bad_request("Invalid type for 'tools': expected an array of objects.", "tools", "invalid_type") from None
    if len(tools) > TOOLS_MAX:
        message = f"A request may bring {TOOLS_MAX:,} tools; this one brings {len(tools):,}."
        raise bad_request(message, "tools", "array_above_max_length")
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        try:
            kind = fields(bytes(tool)).get("type")
            if kind is None or msgspec.json.decode(kind.raw) not in OF_CLIENT:
                judge_tool(family, document(bytes(tool), once=_READ), where)
        except DuplicateField as error:
            raise duplicate(f"{where}.{error.args[0]}") from None
        except (TypeError, ValueError):
            raise bad_request(f"Invalid type for '{where}': expected an object.", where, "invalid_type") from None


def judge_tool(family: Family, tool: Any, where: str, depth: int = TOOL_DEPTH_MAX) -> None:
    """Raises ApiError 400 unless the client runs this tool, and each one inside it."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        raise _refusal(where, "(none)")
    if kind in OF_CLIENT or (kind in family.client_tools and _runs_at_client(kind, tool)):
        return
    if kind != "namespace" or kind not in family.client_tools:
        raise _refusal(where, kind)
    inner = tool.get("tools")
    if not isinstance(inner, list):
        message = f"Invalid type for '{where}.tools': expected an array of objects."
        raise bad_request(message, f"{where}.tools", "invalid_type")
    if depth == 0:
        message = f"Namespaces of tools may be nested {TOOL_DEPTH_MAX} deep."
        raise bad_request(message, f"{where}.tools", "unsupported_parameter")
    for index, each in enumerate(inner):
        judge_tool(family, each, f"{where}.tools[{index}]", depth - 1)


def _runs_at_client(kind: str, tool: dict[str, Any]) -> bool:
    if kind == "shell":
        # Without an environment OpenAI decides where it runs.
        environment = tool.get("environment")
        return isinstance(environment, dict) and environment.get("type") == "local" and not _names_object(environment)
    if kind == "tool_search":
        return tool.get("execution") == "client"  # "server" is the default
    return kind != "namespace"  # which is as good as the tools in it


def _names_object(environment: dict[str, Any]) -> bool:
    """A local skill has a path; one that is kept at OpenAI has an id."""
    skills = environment.get("skills")
    parts = [environment, *(skills if isinstance(skills, list) else ())]
    return any(isinstance(part, dict) and not part.keys().isdisjoint(OBJECT_IDS) for part in parts)


def _refusal(where: str, kind: str) -> ApiError:
    only = _ONLY.get(kind)
    if only is not None:
        message = f"Tool type '{kind}' is supported only {only}: the gateway cannot meter it otherwise."
    else:
        message = f"Tool type '{kind[:60]}' is not supported yet: the gateway cannot meter it."
    return bad_request(f"{message} Function and custom tools work.", f"{where}.type", "unsupported_parameter")
