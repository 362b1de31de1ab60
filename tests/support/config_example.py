"""What config/gateway.example.toml must be, made from the settings themselves; run as a program it writes the file."""

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config import settings as config
from gateway.config.settings import Settings

HEAD = """\
# Every setting of the gateway, with its default. Copy this file, take the # away from what you change, and name the
# copy in GATEWAY_CONFIG. An environment variable wins: the same name in capitals, a section's field with two
# underscores (KEYS__FRESH_S). Keep secrets in the environment, or in files that variables with _FILE at the end name
# (OPENAI_API_KEY_FILE=/run/secrets/openai_api_key).
"""


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field → the string below it in the class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            assert isinstance(below.value, ast.Constant)
            found[field.target.id] = inspect.cleandoc(str(below.value.value)).replace("\n", " ")
    return found


def toml_value(value: Any) -> str:
    """A default as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(list(value) if isinstance(value, tuple) else str(value))


def line(name: str, field: FieldInfo, meaning: str) -> list[str]:
    """The comment and the assignment of one setting."""
    default = "" if field.default is None else field.default
    return [f"# {meaning}" if meaning else "", f"# {name} = {toml_value(default)}"]


def example() -> str:
    """The whole file."""
    lines = [HEAD]
    top, sections = meanings(Settings), []
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            sections.append((name, type(field.default)))
            continue
        lines += [*filter(None, line(name, field, top[name])), ""]
    for name, model in sections:
        about = inspect.cleandoc(model.__doc__ or "").replace("\n", " ")
        lines += [f"[{name}]", f"# {about}", ""]
        texts = meanings(model)
        for key, field in model.model_fields.items():
            lines += [*line(key, field, texts[key]), ""]
    return "\n".join(lines).rstrip() + "\n"


PATH = Path(config.__file__).parents[2] / "config" / "gateway.example.toml"

if __name__ == "__main__":
    PATH.write_text(example())
