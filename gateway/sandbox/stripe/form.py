"""Stripe's two wire formats for parameters: v1's bracketed form and v2's JSON. Pure."""

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

_PART: Final = re.compile(r"\[([^\[\]]*)\]")
DEPTH_MAX: Final = 8


def read_form(body: str) -> dict[str, Any]:
    """`a[b]=1&c[]=2&d[0]=3` as nested maps and lists of strings. Raises ValueError when names contradict."""
    return nest(parse_qsl(body, keep_blank_values=True))


def nest(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Bracketed names as nested maps; maps whose names are 0, 1, … or empty become lists."""
    root: dict[str, Any] = {}
    for name, value in pairs:
        head, mark, _ = name.partition("[")
        path = [head, *_PART.findall(name[len(head) :])] if mark else [name]
        if len(path) > DEPTH_MAX:
            raise ValueError(f"{name}: nested too deeply")
        node = root
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name}: both a value and a map")
        last = path[-1] if path[-1] or len(path) == 1 else str(len(node))
        if isinstance(node.get(last), dict):
            raise ValueError(f"{name}: both a value and a map")
        node[last] = value
    return {name: _to_lists(value) for name, value in root.items()}


def _to_lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    values = {name: _to_lists(value) for name, value in node.items()}
    return list(values.values()) if values and all(name.isdigit() for name in values) else values
