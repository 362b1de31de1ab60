"""The commented example of the configuration never lies: it is what the settings are."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.config.settings import Settings
from tests.support.config_example import PATH, example

SETTING = re.compile(r'^# ([a-z_0-9]+ = (?:\d|"|true$|false$).*)')


def test_the_example_is_what_the_settings_are() -> None:
    assert PATH.read_text() == example(), "run: python -m tests.support.config_example"


def uncommented() -> str:
    """The example with every default switched on."""
    lines = [SETTING.sub(r"\1", line) for line in example().splitlines()]
    kept = [line for line in lines if not line.endswith('= ""')]
    return "\n".join(kept)


def test_its_values_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(uncommented())
    assert tomllib.loads(path.read_text())["keys"]["fresh_s"] == 30
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)
    plain = Settings()
    monkeypatch.setenv("GATEWAY_CONFIG", str(path))
    assert Settings() == plain


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("gateway_port = 1000\n[keys]\nfresh_s = 5\nstale_s = 6\n")
    monkeypatch.setenv("GATEWAY_CONFIG", str(path))
    monkeypatch.setenv("KEYS__FRESH_S", "7")
    loaded = Settings()
    assert (loaded.gateway_port, loaded.keys.fresh_s, loaded.keys.stale_s) == (1000, 7, 6)


def test_an_unknown_setting_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("[keys]\nfrsh_s = 5\n")
    monkeypatch.setenv("GATEWAY_CONFIG", str(path))
    with pytest.raises(ValidationError, match="frsh_s"):
        Settings()
