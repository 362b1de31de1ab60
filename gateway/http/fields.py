"""Reads a query, a path's parameters and a JSON body into a Struct, strictly. Pure.

Raises ApiError 400 that names the field and what is allowed, never its value. Values are decoded one by
one by msgspec, in the order in which the Struct declares them, so the first fault is always the same one. A field may
bring a reader of its own, and its own words:

    UserId = Annotated[str, Meta(extra={"parse": read_uuid})]      # Any -> str; its ValueError says "must be a UUID"
    Limit = Annotated[int, Meta(ge=1, le=100, extra={"must": "must be a whole number from 1 to 100"})]
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import inspect

from gateway.kit.errors import ApiError
from gateway.kit.ids import is_uuid
from gateway.kit.json_structure import Bounds, TooMuchStructure, check_structure
from gateway.kit.strict_json import parse

PARAMETERS_MAX: Final = 20
BOUNDS: Final = Bounds(objects=10_000, values=50_000, numbers=50_000)
"""What a body may hold; it is read in Python, value by value, in the event loop."""
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request gives: a body, a query or the parameters of a path. `X | UnsetType = UNSET` may be left out."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"  # values may be secret


class Nothing(Fields, frozen=True, kw_only=True):
    """No parameters."""


F = TypeVar("F", bound=Fields)


def read_uuid(value: Any) -> str:
    """A UUID in lower case."""
    if not isinstance(value, str) or not is_uuid(value):
        raise ValueError("must be a UUID")
    return value.lower()


def read_query(query: str, wanted: type[F]) -> F:
    """The query of a request, without its question mark."""
    names = [field.encode_name for field in msgspec.structs.fields(wanted)]
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=PARAMETERS_MAX,
        )
    except ValueError:  # UnicodeDecodeError is one
        raise ApiError(400, "invalid_query", "The query cannot be read.") from None
    for name, _ in pairs:
        if name not in names:
            allowed = f"; known are {', '.join(names)}" if names else ", this request takes none"
            raise ApiError(400, "unknown_parameter", f"Unknown query parameter{allowed}.", param=_quote_name(name))
    if len(dict(pairs)) != len(pairs):
        raise ApiError(400, "duplicate_parameter", "A query parameter is given more than once.")
    return _read_fields(dict(pairs), wanted, text=True)


def read_path(given: Mapping[str, str], wanted: type[F]) -> F:
    """The parameters of a path. A field's `title` names it in the error: "The room's id in the path must be …"."""
    values = {}
    for field in msgspec.structs.fields(wanted):
        name, kind = field.encode_name, _kind_of(field.type)
        try:
            values[field.name] = _read_value(given[name], field.type, kind, text=True)
        except ValueError as error:
            message = f"{kind.title or repr(name)} in the path {error}."
            raise ApiError(400, "invalid_value", message, param=name) from None
    return wanted(**values)


def read_body(body: bytes, wanted: type[F]) -> F:
    """A JSON object."""
    try:
        check_structure(body, BOUNDS)
        given = parse(body)
    except TooMuchStructure as error:
        message = f"The request body holds more than {error.limit:,} JSON {error.what}."
        raise ApiError(400, "request_too_complex", message) from None
    except ValueError as error:
        raise ApiError(400, "invalid_json", f"The request body cannot be taken: {error}.") from None
    if not isinstance(given, dict):
        raise ApiError(400, "invalid_json", "The request body must be a JSON object.")
    known = {field.encode_name for field in msgspec.structs.fields(wanted)}
    for name in given:
        if name not in known:
            message = f"Unknown field; known are {', '.join(sorted(known))}."
            raise ApiError(400, "unknown_field", message, param=_quote_name(name))
    return _read_fields(given, wanted, text=False)


def invalid(name: str, wrong: str) -> ApiError:
    """The refusal of a field; `wrong` follows its name: "must be …"."""
    return ApiError(400, "invalid_value", f"'{name}' {wrong}.", param=name)


def _read_fields(given: Mapping[str, Any], wanted: type[F], *, text: bool) -> F:
    fields = [(field, _kind_of(field.type)) for field in msgspec.structs.fields(wanted)]
    for field, kind in fields:
        absent = field.encode_name not in given or (given[field.encode_name] is None and not kind.nullable)
        if field.required and absent:
            raise ApiError(400, "missing_field", f"'{field.encode_name}' is missing.", param=field.encode_name)
    values = {}
    for field, kind in fields:
        name = field.encode_name
        if name in given:
            try:
                values[field.name] = _read_value(given[name], field.type, kind, text=text)
            except ValueError as error:
                raise invalid(name, str(error)) from None
    return wanted(**values)


class _Kind(NamedTuple):
    """A field's type, taken apart."""

    members: list[inspect.Type]
    """Of the union that it may be, without null and without annotations."""
    nullable: bool
    notes: dict[str, Any]
    """What `Meta(extra=…)` says: `parse`, `must`."""
    title: str | None


def _kind_of(annotation: Any) -> _Kind:
    members: list[inspect.Type] = []
    notes: dict[str, Any] = {}
    title = None
    left = [inspect.type_info(annotation)]
    while left:
        kind = left.pop(0)
        if isinstance(kind, inspect.Metadata):
            notes |= kind.extra or {}
            title = (kind.extra_json_schema or {}).get("title", title)
            left.insert(0, kind.type)
        elif isinstance(kind, inspect.UnionType):
            left = [*kind.types, *left]
        else:
            members.append(kind)
    nullable = any(isinstance(each, inspect.NoneType | inspect.AnyType) for each in members)
    return _Kind([each for each in members if not isinstance(each, inspect.NoneType)], nullable, notes, title)


def _read_value(value: Any, annotation: Any, kind: _Kind, *, text: bool) -> Any:
    """The value as the annotation has it. Raises ValueError with what would be right."""
    if value is None and kind.nullable:
        return None
    if "parse" in kind.notes:
        return kind.notes["parse"](value)
    whole = text and [type(each) for each in kind.members] == [inspect.IntType]
    try:
        if whole and not _WHOLE.fullmatch(value):  # msgspec takes 1e1 for a whole number
            raise ValueError
        return msgspec.convert(value, annotation, strict=not text)
    except ValueError:  # msgspec's message may quote the value
        words = f"must be {' or '.join(_words(each) for each in kind.members)}{' or null' if kind.nullable else ''}"
        raise ValueError(kind.notes.get("must", words)) from None


def _words(kind: inspect.Type) -> str:
    """What a value of this type is, for an error message."""
    match kind:
        case inspect.LiteralType(values=values):
            return " or ".join(repr(each) for each in values)
        case inspect.EnumType(cls=cls):
            return " or ".join(repr(each.value) for each in cls)
        case inspect.IntType(ge=least, le=most):
            return f"a whole number{_bounds(least, most)}"
        case inspect.FloatType(ge=least, le=most):
            return f"a number{_bounds(least, most)}"
        case inspect.StrType(min_length=shortest, max_length=int(longest)):
            return f"text of {shortest or 0} to {longest} characters"
        case inspect.StrType(pattern=str(pattern)):
            return f"text that matches {pattern}"
        case inspect.ListType(item_type=item):
            return f"a list of: {_words(item)}"
    return _NAMES.get(type(kind), "of the type that the OpenAPI document names")


_NAMES: Final[Mapping[type[inspect.Type], str]] = {
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.UUIDType: "a UUID",
    inspect.DateTimeType: "an instant with its zone, like 2026-11-22T10:00:00Z",
    inspect.DateType: "a date, like 2026-11-22",
    inspect.DictType: "a JSON object",
    inspect.StructType: "a JSON object as the OpenAPI document describes it",
}


def _bounds(least: Any, most: Any) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    return f" from {least}" if least is not None else f" up to {most}" if most is not None else ""


def _quote_name(name: str) -> str:
    """A name chosen by a client, shown only if it looks like one: it may be a misplaced value."""
    return name if len(name) <= 40 and name.isascii() and name.replace("_", "").isalnum() else "?"
