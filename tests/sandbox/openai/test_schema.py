"""The stand-in's structured answers fit the schema that was asked for: pydantic, which made it, judges them."""

import datetime
import json
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from gateway.sandbox.openai.schema import fake

SEED = bytes(range(32))


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Unit(StrEnum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Place(Strict):
    city: str = Field(min_length=20, max_length=40)
    country: str | None
    position: tuple[float, float]


class Node(Strict):
    """Refers to itself in every way that ends."""

    name: str
    parent: "Node | None"
    children: list["Node"]
    named: "dict[str, Node]"


class Cat(Strict):
    kind: Literal["cat"]
    lives: int = Field(gt=0, lt=10)


class Dog(Strict):
    kind: Literal["dog"]
    weight: float = Field(gt=0, lt=1)


class Report(Strict):
    """References, some of them to the same part, and everything that OpenAI's structured outputs allow."""

    places: Annotated[list[Place], Field(min_length=3, max_length=4)]
    home: Place
    pet: Cat | Dog
    tree: Node
    unit: Unit
    id: UUID
    day: datetime.date
    at: datetime.datetime
    count: Annotated[int, Field(ge=7, multiple_of=5)]
    share: Annotated[float, Field(ge=-0.5, le=-0.25)]
    flags: list[bool]
    none: None


class Chain(Strict):
    head: "Link"


class Link(Strict):
    value: int
    next: "Link | None"


@pytest.mark.parametrize("model", [Place, Node, Report, Chain])
@pytest.mark.parametrize("seed", [SEED, SEED[::-1], bytes(32), b"\xff" * 32])
def test_a_schema_with_references_is_filled(model: type[BaseModel], seed: bytes) -> None:
    schema = model.model_json_schema()
    assert "$defs" in schema or model is Place
    value = fake(schema, seed)
    model.model_validate_json(json.dumps(value))
    assert value == fake(schema, seed)


@settings(max_examples=200)
@given(
    bounds=st.tuples(st.integers(-1000, 1000), st.integers(0, 500)),
    exclusive=st.booleans(),
    seed=st.binary(min_size=32, max_size=32),
)
def test_a_number_keeps_its_bounds(bounds: tuple[int, int], exclusive: bool, seed: bytes) -> None:
    low, high = bounds[0], bounds[0] + bounds[1]
    whole = Field(gt=low - 1, lt=high + 1) if exclusive else Field(ge=low, le=high)
    part = Field(gt=low, lt=high + 0.001) if exclusive else Field(ge=low, le=high)
    for kind, limits in ((int, whole), (float, part)):
        limited: Any = Annotated[kind, limits]
        adapter: TypeAdapter[Any] = TypeAdapter(limited)
        adapter.validate_python(fake(adapter.json_schema(), seed), strict=True)


def test_a_schema_that_never_ends_is_cut() -> None:
    endless: Any = {"$ref": "#"}
    assert fake(endless, SEED) == {}
    both = {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]}
    assert set(fake(both, SEED)) == {"a", "b"}
    assert len(fake({"type": "array", "items": {"type": "null"}, "minItems": 10**12}, SEED)) <= 1000


def test_parts_that_hold_together_are_merged() -> None:
    one = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    other = {"$ref": "#/$defs/o~1ther"}
    schema = {
        "allOf": [one, other],
        "$defs": {"o/ther": {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}},
    }
    value = fake(schema, SEED)
    assert (type(value["a"]), type(value["b"])) == (int, bool)
