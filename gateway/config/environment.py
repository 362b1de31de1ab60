"""The environment as a source of settings. Only a section's fields can be set there, not a section as a whole.

A section's bare name (`KEYS`, `JOURNAL`) is a plausible variable of some other program, so it is ignored;
`gateway config check` warns of it.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource


class Environment(EnvSettingsSource):
    """pydantic-settings' own source, which would read such a variable as JSON and raise SettingsError."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if is_section(field):
            return None, field_name, True
        return super().get_field_value(field, field_name)


def is_section(field: FieldInfo) -> bool:
    """Whether a field of Settings is a group of settings."""
    return isinstance(field.default, BaseModel)
