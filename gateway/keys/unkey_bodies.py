"""What Unkey's error bodies say. Pure; the caller takes secrets out."""

from typing import Any

import msgspec


def detail_of(body: str) -> str:
    """`error.detail`, and of a 400 what each field lacks."""
    try:
        error = msgspec.json.decode(body, type=dict[str, Any])["error"]
        texts = [error["detail"], *(f"{item['location']}: {item['message']}" for item in error.get("errors") or ())]
    except (msgspec.DecodeError, LookupError, TypeError):
        return "no reason given"
    return "; ".join(map(str, texts))


def kind_of(body: str) -> str:
    """`error.type`, a page of Unkey's documentation whose name is the kind of error."""
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any])["error"]["type"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return ""
