"""The OpenAPI 3.1 document of routes, made from what they declare. Pure."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from gateway.http.fields import Nothing
from gateway.http.route import Refusal
from gateway.http.router import AnyRoute

OPENAPI: Final = "3.1.0"
_REF: Final = "#/components/schemas/{name}"


class About(NamedTuple):
    """What the document says of the API as a whole."""

    title: str
    version: str
    description: str
    common: tuple[Refusal, ...]
    """Errors that any of its routes may answer with."""


class ErrorDetail(msgspec.Struct):
    """What went wrong, in OpenAI's form."""

    message: str
    type: str
    param: str | None
    """The field, parameter or header at fault."""
    code: str | None


class Error(msgspec.Struct):
    """The envelope of every error."""

    error: ErrorDetail


def build_document(about: About, routes: Sequence[AnyRoute]) -> dict[str, Any]:
    """The document, as JSON."""
    types = [Error]
    for route in routes:
        types += [result.body for result in route.results.values()]
        types += [] if route.body is Nothing else [route.body]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    known = list(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation, extra = _operation(route, about.common, known)
        components |= extra
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": OPENAPI,
        "info": {"title": about.title, "version": about.version, "description": about.description},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    }


def _operation(
    route: AnyRoute, common: tuple[Refusal, ...], known: list[tuple[Any, dict[str, Any]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The operation, and the components that its parameters need."""
    in_path, extra = _parameters(route.path_fields, "path")
    in_query, more = _parameters(route.query, "query")
    headers = [
        {"name": name, "in": "header", "required": False, "description": words, "schema": {"type": "string"}}
        for name, words in route.headers.items()
    ]
    who = f"Needs the permission `{route.permission}`." if route.permission else "Any valid key may."
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary, "description": who}
    if parameters := [*in_path, *in_query, *headers]:
        operation["parameters"] = parameters
    if route.body is not Nothing:
        operation["requestBody"] = {"required": True, "content": _content(_schema(route.body, known))}
    responses = {
        str(status): {
            "description": result.description,
            **({"headers": _headers(result.headers)} if result.headers else {}),
            "content": _content(_schema(result.body, known)),
        }
        for status, result in route.results.items()
    }
    operation["responses"] = responses | _errors([*route.all_refusals(), *common])
    return operation, extra | more


def _parameters(fields: type[msgspec.Struct], where: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    _, components = msgspec.json.schema_components([fields], ref_template=_REF)
    schema = components.pop(fields.__name__)
    found = []
    for name, of_one in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        parameter = {"name": name, "in": where, "required": required, "schema": dict(of_one)}
        if words := parameter["schema"].pop("description", None):
            parameter["description"] = words
        found.append(parameter)
    return found, components


def _errors(refusals: list[Refusal]) -> dict[str, Any]:
    """A response for each status, with the codes that it may have."""
    by_status: dict[int, list[Refusal]] = {}
    for refusal in refusals:
        by_status.setdefault(refusal.status, []).append(refusal)
    responses = {}
    for status, several in sorted(by_status.items()):
        words: dict[str, str] = {}
        for each in several:
            words.setdefault(each.code, each.when)
        codes = {"type": "object", "properties": {"code": {"enum": list(words)}}}
        schema = {
            "allOf": [
                {"$ref": _REF.format(name=Error.__name__)},
                {"type": "object", "properties": {"error": codes}},
            ]
        }
        text = "\n".join(f"- `{code}`: {when}" for code, when in words.items())
        responses[str(status)] = {"description": text, "content": _content(schema)}
    return responses


def _schema(wanted: Any, known: list[tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    return next(schema for type_, schema in known if type_ is wanted)


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _headers(named: Any) -> dict[str, Any]:
    return {name: {"description": words, "schema": {"type": "string"}} for name, words in named.items()}
