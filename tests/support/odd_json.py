"""JSON objects as odd clients write them, for property tests."""

import json
from typing import Any

from hypothesis import strategies as st

_space = st.text(" \t\r\n", max_size=2)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def written(draw: st.DrawFn, members: st.SearchStrategy[list[tuple[str, Any]]]) -> str:
    """An object of these members, written with odd whitespace and escapes."""
    parts = []
    for name, value in draw(members):
        key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        parts.append(f"{draw(_space)}{key}{draw(_space)}:{draw(_space)}{json.dumps(value)}{draw(_space)}")
    return draw(_space) + "{" + ",".join(parts) + draw(_space) + "}" + draw(_space)
