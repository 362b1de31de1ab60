"""What a whole response body tells about hosted tools: what was used and how often. Pure; counts, never prices.

A hosted tool that this file does not know is a problem, not a free ride.
Answers and prompts in the body are skipped by the decoder and never kept.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from pricing.usage import TOKENS_MAX, UsageError, nonzero_number

_FREE_ITEMS: Final = frozenset(
    (
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "compaction",
        "computer_call",
        "computer_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "function_call",
        "function_call_output",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "message",
        "program",
        "program_output",
        "reasoning",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
    )
)
"""Output items that cost their tokens only."""
_BILLED: Final = frozenset(
    ("web_search_call", "file_search_call", "code_interpreter_call", "shell_call", "image_generation_call")
)
_WEB_GA: Final = frozenset(("web_search", "web_search_2025_08_26"))
_WEB_PREVIEW: Final = frozenset(("web_search_preview", "web_search_preview_2025_03_11"))


class _Item(msgspec.Struct):
    type: str
    action: Any = None
    container_id: str | None = None
    environment: Any = None
    svg_usage: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    type: str
    model: str | None = None
    container: Any = None
    environment: Any = None


class _Body(msgspec.Struct):
    model: str | None = None
    service_tier: str | None = None
    output: list[_Item] | None = None
    tools: list[_Tool] | None = None
    tool_usage: dict[str, Any] | None = None


class SvgUsage(msgspec.Struct, frozen=True):
    """Tokens that a language model spent on drawing one SVG image."""

    model: str
    classes: dict[str, int]


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of billable tool use in one response, and what the response says of itself."""

    model: str | None
    service_tier: str | None
    web_searches: int
    web_kind: str
    """`ga`, `preview`, or `unclear` when the body does not tell which tool it was."""
    file_searches: int
    containers: dict[str, int]
    """Memory limit (`1g`, …; `""` when the body does not tell) → distinct containers."""
    image_classes: dict[str, int]
    image_model: str | None
    svg: tuple[SvgUsage, ...]


def read(response: bytes) -> ToolUse:
    """Count the tool use in a whole response body. UsageError when the body cannot be read or counted."""
    try:
        body = msgspec.json.decode(response, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"response cannot be read: {error}") from error
    items = body.output or []
    tools = body.tools or []
    unknown = next((item.type for item in items if item.type not in _FREE_ITEMS and item.type not in _BILLED), None)
    if unknown is not None:
        raise UsageError(f"response.output has an item {unknown[:80]!r}, and what it costs is unknown")
    reported = body.tool_usage or {}
    for family, value in reported.items():
        found = None if family in ("image_gen", "web_search") else nonzero_number(value, f"tool_usage.{family}")
        if found is not None:
            raise UsageError(f"{found} is not a known usage field, so what it costs is unknown")
    return ToolUse(
        model=body.model,
        service_tier=body.service_tier,
        web_searches=_web_searches(items, reported),
        web_kind=_web_kind(tools),
        file_searches=sum(item.type == "file_search_call" for item in items),
        containers=_containers(items, tools),
        image_classes=_image_classes(items, reported.get("image_gen")),
        image_model=next((tool.model for tool in tools if tool.type == "image_generation"), None),
        svg=tuple(_svg(item.svg_usage) for item in items if item.svg_usage is not None),
    )


def _web_searches(items: Iterable[_Item], reported: dict[str, Any]) -> int:
    """`num_requests` when OpenAI gives it (it leaves out discounted searches), else the search actions seen."""
    web = reported.get("web_search")
    if web is not None:
        count = _number(web, "num_requests", "tool_usage.web_search")
        if count is not None:
            return count
    return sum(item.type == "web_search_call" and _is_search(item.action) for item in items)


def _is_search(action: object) -> bool:
    return not isinstance(action, dict) or action.get("type", "search") == "search"


def _web_kind(tools: Iterable[_Tool]) -> str:
    kinds = {tool.type for tool in tools}
    preview, ga = bool(kinds & _WEB_PREVIEW), bool(kinds & _WEB_GA)
    if preview == ga:
        return "unclear"
    return "preview" if preview else "ga"


def _containers(items: Iterable[_Item], tools: list[_Tool]) -> dict[str, int]:
    """Distinct containers by memory limit. Sessions of one container across responses cannot be seen here."""
    limits = {
        "code_interpreter_call": _memory(next((t.container for t in tools if t.type == "code_interpreter"), None)),
        "shell_call": _memory(next((t.environment for t in tools if t.type == "shell"), None)),
    }
    seen: dict[str, str] = {}
    for item in items:
        if item.type == "code_interpreter_call":
            seen.setdefault(item.container_id or "", limits[item.type])
        elif item.type == "shell_call":
            container = _shell_container(item.environment, tools)
            if container is not None:
                seen.setdefault(container, limits[item.type])
    counts: dict[str, int] = {}
    for limit in seen.values():
        counts[limit] = counts.get(limit, 0) + 1
    return counts


def _shell_container(environment: object, tools: Iterable[_Tool]) -> str | None:
    """The id of the container a shell call ran in (empty when not told), or None for the client's own machine."""
    if isinstance(environment, dict):
        if environment.get("type") == "local":
            return None
        return str(environment.get("container_id") or "")
    asked = next((tool.environment for tool in tools if tool.type == "shell"), None)
    return "" if isinstance(asked, dict) and asked.get("type") != "local" else None


def _memory(container: object) -> str:
    """The memory limit that the tool asked for: 1g unless said otherwise; empty for a container made elsewhere."""
    if isinstance(container, dict) and container.get("type") in ("auto", "container_auto"):
        return str(container.get("memory_limit") or "1g")
    return ""


def _image_classes(items: Iterable[_Item], reported: object) -> dict[str, int]:
    if reported is None:
        if any(item.type == "image_generation_call" and item.svg_usage is None for item in items):
            raise UsageError("image_generation_call without tool_usage.image_gen: its tokens are unknown")
        return {}
    path = "tool_usage.image_gen"
    total_in = _number(reported, "input_tokens", path) or 0
    total_out = _number(reported, "output_tokens", path) or 0
    text, _ = _split(reported, "input_tokens_details", "text_tokens", "image_tokens", total_in, path)
    cached = _number(reported, "cached_tokens", path) or 0
    cached_text, cached_image = min(cached, text), cached - min(cached, text)
    if isinstance(reported, dict) and reported.get("cached_tokens_details") is not None:
        details = reported["cached_tokens_details"]
        cached_text = _number(details, "cached_text_tokens", f"{path}.cached_tokens_details") or 0
        cached_image = _number(details, "cached_image_tokens", f"{path}.cached_tokens_details") or 0
    image = total_in - text
    if cached_text > text or cached_image > image:
        raise UsageError(f"{path}.cached_tokens {cached_text + cached_image} is above its input_tokens {total_in}")
    text_out, _ = _split(reported, "output_tokens_details", "text_tokens", "image_tokens", total_out, path)
    classes = {
        "input": text - cached_text,
        "cached": cached_text,
        "image_input": image - cached_image,
        "image_cached": cached_image,
        "output": text_out,
        "image_output": total_out - text_out,
    }
    return {class_: count for class_, count in classes.items() if count}


def _split(holder: object, name: str, one: str, other: str, total: int, path: str) -> tuple[int, int]:
    """Both parts of a total; what the details do not name belongs to `other` (images, the dearer)."""
    details = holder.get(name) if isinstance(holder, dict) else None
    first = (_number(details, one, f"{path}.{name}") or 0) if details is not None else 0
    second = (_number(details, other, f"{path}.{name}") or 0) if details is not None else 0
    if first + second > total:
        raise UsageError(f"{path}.{name}: {one} + {other} is {first + second}, above {total}")
    return first, total - first


def _svg(usage: dict[str, Any]) -> SvgUsage:
    path = "svg_usage"
    model = usage.get("model")
    if not isinstance(model, str):
        raise UsageError("svg_usage has no model")
    classes = {
        "input": _number(usage, "input_tokens", path) or 0,
        "output": _number(usage, "output_tokens", path) or 0,
    }
    return SvgUsage(model, {class_: count for class_, count in classes.items() if count})


def _number(holder: object, name: str, path: str) -> int | None:
    if not isinstance(holder, dict):
        raise UsageError(f"{path} is not an object")
    value = holder.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= TOKENS_MAX:
        raise UsageError(f"{path}.{name} is {str(value)[:40]}, not a count")
    return value
