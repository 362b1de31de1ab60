"""`expand`: an answer with objects in place of their ids (docs.stripe.com, expanding objects)."""

import copy
from collections.abc import Callable
from typing import Any, Final

from gateway.sandbox.stripe.meters import StripeApiError

DEPTH_MAX: Final = 4
"""docs.stripe.com, api/expanding_objects."""

INCLUDABLE: Final = "currency_options"
"""Of a price, left out unless it is asked for (docs.stripe.com, api/expanding_objects: includable properties)."""


def expand_answer(answer: Any, paths: list[Any], find: Callable[[str], Any]) -> Any:
    """A copy in which each path (`data.customer`, `latest_invoice`) has an object; `find` gives it by its id, None for
    what is no such id. Raises StripeApiError (400)."""
    if not paths:
        return _without_includable(answer)
    copied = copy.deepcopy(answer)
    for path in paths:
        names = str(path).split(".")
        if len(names) > DEPTH_MAX or not _expand(copied, names, find):
            raise StripeApiError(400, f"This property cannot be expanded ({path}).", param="expand")
    return copied if any(str(path).endswith(INCLUDABLE) for path in paths) else _without_includable(copied)


def _without_includable(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_includable(each) for each in node]
    if isinstance(node, dict):
        return {name: _without_includable(each) for name, each in node.items() if name != INCLUDABLE}
    return node


def _expand(node: Any, names: list[str], find: Callable[[str], Any]) -> bool:
    """Whether the path leads somewhere."""
    if isinstance(node, list):
        return False not in [_expand(each, names, find) for each in node]
    if not isinstance(node, dict) or names[0] not in node:
        return False
    name, *rest = names
    if isinstance(node[name], str):
        found = find(node[name])
        if found is None:
            return False
        node[name] = copy.deepcopy(found)
    return node[name] is None or not rest or _expand(node[name], rest, find)
