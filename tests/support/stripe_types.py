"""Whether an object on the wire is what Stripe's SDK says that it is: members, null where it may be, enums.

Reads the source of the SDK's resource classes, which Stripe generates from its OpenAPI document.
"""

import ast
import inspect
from collections.abc import Iterator
from typing import Any, Final

import stripe

_PLAIN: Final[dict[str, type | tuple[type, ...]]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}
_WIRE_DECIMAL: Final = "Decimal"
"""A text on the wire; the SDK makes a Decimal of it."""


def differences(found: Any, resource: type[stripe.StripeObject]) -> list[str]:
    """Every member that is missing, null without being optional, of another type, or outside its enum."""
    (node,) = [
        each
        for each in ast.parse(inspect.getsource(inspect.getmodule(resource) or resource)).body
        if isinstance(each, ast.ClassDef) and each.name == resource.__name__
    ]
    return list(_compare_class(found, node, {}, resource.__name__))


def _compare_class(found: Any, node: ast.ClassDef, outer: dict[str, ast.ClassDef], path: str) -> Iterator[str]:
    inner = outer | {each.name: each for each in node.body if isinstance(each, ast.ClassDef)}
    if not isinstance(found, dict):
        yield f"{path}: an object is expected"
        return
    for member in node.body:
        if not isinstance(member, ast.AnnAssign) or not isinstance(member.target, ast.Name):
            continue
        name = member.target.id
        if "ClassVar" in ast.unparse(member.annotation) or name == "_inner_class_types":
            continue
        wanted, is_optional = _without_optional(member.annotation)
        # An alias of a member that Python could not name, as `from_`.
        value = found.get(name.rstrip("_"))
        if value is None:
            if not is_optional:
                yield f"{path}.{name}: missing or null"
        else:
            yield from _compare(value, wanted, inner, f"{path}.{name}")


def _without_optional(annotation: ast.expr) -> tuple[ast.expr, bool]:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Optional":
        return annotation.slice, True
    return annotation, False


def _compare(value: Any, wanted: ast.expr, inner: dict[str, ast.ClassDef], path: str) -> Iterator[str]:
    wanted, _ = _without_optional(wanted)
    if isinstance(wanted, ast.Name):
        if wanted.id in inner:
            yield from _compare_class(value, inner[wanted.id], inner, path)
        elif wanted.id == _WIRE_DECIMAL and not isinstance(value, str):
            yield f"{path}: a decimal in a text is expected, not {value!r}"
        elif wanted.id in _PLAIN and not isinstance(value, _PLAIN[wanted.id]):
            yield f"{path}: {wanted.id} is expected, not {value!r}"
        return
    if not isinstance(wanted, ast.Subscript):
        return
    kind, inside = ast.unparse(wanted.value), wanted.slice
    if kind == "Literal":
        allowed = ast.literal_eval(inside)
        if value not in (allowed if isinstance(allowed, tuple) else (allowed,)):
            yield f"{path}: {value!r} is not of the enum"
    elif kind == "Union" and isinstance(inside, ast.Tuple):
        yield from _compare(value, inside.elts[0], inner, path)
    elif kind == "ExpandableField" and not isinstance(value, str):
        yield f"{path}: an id is expected, not {value!r}"
    elif kind in ("List", "ListObject"):
        items = value["data"] if kind == "ListObject" else value
        for number, item in enumerate(items):
            yield from _compare(item, inside, inner, f"{path}[{number}]")
