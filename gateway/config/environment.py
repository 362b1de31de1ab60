"""The environment as a source of settings. Only a section's fields can be set there, not a section as a whole.

A section's bare name (`KEYS`, `JOURNAL`) is a plausible variable of some other program, so it is ignored;
`gateway config check` warns of it.
"""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from gateway.config.secret_files import with_file_values


class Environment(EnvSettingsSource):
    """pydantic-settings' own source, which would read such a variable as JSON and raise SettingsError; and secrets
    come from files too. Raises ConfigError where such a file cannot be used.
    """

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str] | None = None) -> None:
        """`environ`: another environment than this process's own."""
        self._environ = os.environ if environ is None else environ
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return parse_env_vars(
            with_file_values(self._environ), self.case_sensitive, bool(self.env_ignore_empty), self.env_parse_none_str
        )

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if is_section(field):
            return None, field_name, True
        return super().get_field_value(field, field_name)


def is_section(field: FieldInfo) -> bool:
    """Whether a field of Settings is a group of settings."""
    return isinstance(field.default, BaseModel)
