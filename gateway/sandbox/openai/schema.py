"""Values that fit a JSON schema, for the structured answers and function calls of the OpenAI stand-in. Pure.

What OpenAI's structured outputs allow is obeyed: types, enums, `$ref` (also recursive), unions, bounds, formats. Of a
`pattern` only the value's type is kept.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import ceil, floor
from typing import Any, Final

DEEP: Final = 5
"""From here on a value is as small as its schema allows, so that recursive schemas end."""
_DEPTH_MAX: Final = 64
_PARTS_MAX: Final = 10_000
"""Parts of one value; a schema that never ends gets null from there on."""
SIZE_MAX: Final = 1000
"""Most letters of a text and most items of an array, whatever a schema asks for."""
_WORDS: Final = ("gateway", "counts", "every", "call", "once", "and", "keeps", "its", "price", "exact")
_FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:30:00Z",
    "time": "12:30:00Z",
    "duration": "P1DT2H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "5f2b7c1e-9d64-4a3b-8e0f-1c2d3e4f5a6b",
}
Schema = Mapping[str, Any]


def fake(schema: Any, seed: bytes) -> Any:
    """A value for `schema`, always the same for the same seed."""
    return _Filler(schema).fill(schema, seed, 0)


class _Filler:
    """Fills the parts of one whole schema, which holds what they refer to."""

    def __init__(self, root: Any) -> None:
        self._root: Final = root
        self._left = _PARTS_MAX

    def fill(self, schema: Any, seed: bytes, depth: int) -> Any:
        self._left -= 1
        if depth > _DEPTH_MAX or self._left < 0:
            return None
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        if isinstance(enum := schema.get("enum"), list) and enum:
            return enum[seed[3] % len(enum)]
        for union in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(union), list) and options:
                shared = {name: value for name, value in schema.items() if name != union}
                return self.fill({**shared, **self._choose(options, depth)}, seed, depth + 1)
        match self._type(schema, depth):
            case "object":
                return self._object(schema, seed, depth)
            case "array":
                return self._array(schema, seed, depth)
            case "string":
                return _text(schema, seed)
            case "integer":
                return _integer(schema, seed)
            case "number":
                return _number(schema, seed)
            case "boolean":
                return seed[6] % 2 == 0
        return None

    def _resolve(self, schema: Any) -> Schema:
        """The schema with its `$ref` followed and its `allOf` merged."""
        merged = dict(schema) if isinstance(schema, Mapping) else {}
        for _ in range(_DEPTH_MAX):
            parts = merged.pop("allOf", None)
            reference = merged.pop("$ref", None)
            if isinstance(reference, str):
                merged = {**self._at(reference), **merged}
            if isinstance(parts, list):
                for part in parts:
                    merged = _both(merged, self._resolve(part))
            if "$ref" not in merged and "allOf" not in merged:
                break
        return merged

    def _at(self, reference: str) -> Schema:
        """What a reference within the schema points to; nothing for one that points elsewhere."""
        found = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def _choose(self, options: list[Any], depth: int) -> Schema:
        """The first option, or deep down one that goes no deeper."""
        resolved = [self._resolve(option) for option in options]
        ends = [option for option in resolved if self._type(option, depth) not in ("object", "array")]
        return ends[-1] if ends and depth >= DEEP else resolved[0]

    def _type(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list) and kind:
            return "null" if "null" in kind and depth >= DEEP else kind[0]
        if kind is None and ("items" in schema or "prefixItems" in schema):
            return "array"
        return "object" if kind is None else kind

    def _object(self, schema: Schema, seed: bytes, depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        required = schema.get("required")
        wanted = required if isinstance(required, list) else []
        names = [name for name in known if depth < DEEP or name in wanted]
        filled = {name: self.fill(known[name], _below(seed, name), depth + 1) for name in names}
        others = schema.get("additionalProperties")
        if not known and isinstance(others, Mapping) and depth < DEEP:
            filled["key"] = self.fill(others, _below(seed, "key"), depth + 1)
        return filled

    def _array(self, schema: Schema, seed: bytes, depth: int) -> list[Any]:
        first = schema.get("prefixItems")
        items = list(first) if isinstance(first, list) else []
        count = max(_size(schema, "minItems") or 0, len(items), 1 if "items" in schema and depth < DEEP else 0)
        parts = [*items, *[schema.get("items", {})] * (count - len(items))][: _size(schema, "maxItems")]
        return [self.fill(part, _below(seed, str(place)), depth + 1) for place, part in enumerate(parts)]


def _both(one: Schema, other: Schema) -> dict[str, Any]:
    """Two schemas that hold together: properties and required names of both."""
    merged = {**one, **other}
    for name in ("properties", "required"):
        first, second = one.get(name), other.get(name)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            merged[name] = {**first, **second}
        elif isinstance(first, list) and isinstance(second, list):
            merged[name] = [*first, *second]
    return merged


def _below(seed: bytes, name: str) -> bytes:
    return sha256(seed + name.encode("utf-8", "surrogatepass")).digest()


def _bound(schema: Schema, name: str) -> float | None:
    """A limit of the schema; None when it says none, or no number."""
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(schema: Schema, name: str) -> int | None:
    value = _bound(schema, name)
    return None if value is None else max(0, min(int(value), SIZE_MAX))


def _text(schema: Schema, seed: bytes) -> str:
    known = _FORMATS.get(str(schema.get("format")))
    if known is not None:
        return known
    text = _WORDS[seed[4] % len(_WORDS)]
    text += "." * ((_size(schema, "minLength") or 0) - len(text))
    return text[: _size(schema, "maxLength")]


def _integer(schema: Schema, seed: bytes) -> int:
    low = [ceil(bound) for bound in (_bound(schema, "minimum"),) if bound is not None]
    low += [floor(bound) + 1 for bound in (_bound(schema, "exclusiveMinimum"),) if bound is not None]
    high = [floor(bound) for bound in (_bound(schema, "maximum"),) if bound is not None]
    high += [ceil(bound) - 1 for bound in (_bound(schema, "exclusiveMaximum"),) if bound is not None]
    return int(_between(low, high, seed[5], _bound(schema, "multipleOf")))


def _number(schema: Schema, seed: bytes) -> float:
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    # Half of what lies between two bounds that are not to be reached.
    gap = (below - above) / 2 if above is not None and below is not None else 0.5
    lows = [bound for bound in (low, None if above is None else above + gap) if bound is not None]
    highs = [bound for bound in (high, None if below is None else below - gap) if bound is not None]
    return _between(lows, highs, seed[5], _bound(schema, "multipleOf"))


def _between(lows: Sequence[float], highs: Sequence[float], usual: float, multiple: float | None) -> float:
    number = min([max([usual, *lows]), *highs])
    if multiple is None or multiple <= 0:
        return number
    steps = number // multiple
    return (steps + 1 if lows and steps * multiple < max(lows) else steps) * multiple
