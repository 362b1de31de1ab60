"""Each secret may come from a file that its variable with _FILE at the end names."""

import os
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel, SecretStr

from gateway.config import secret_files
from gateway.config.database_logins import PROCESSES, setting
from gateway.config.secret_table import NEEDED_BY, file_variable, variable
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from tests.support.invoke import gateway

MARK: Final = "Xq7"
RING: Final = "k1:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
DSN: Final = f"postgresql://u:{MARK}@127.0.0.1/d"
VALUES: Final = {
    "database_url": DSN,
    **{setting(process): DSN for process in PROCESSES},
    "redis_url": f"redis://:{MARK}@127.0.0.1/0",
    "limits_redis_url": f"redis://:{MARK}@127.0.0.1/1",
    "stripe_webhook_secret": "whsec_0123456789abcdef",
    "daily_webhook_secret": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "rooms_keys": RING,
    "gateway_secrets": RING,
    "egress.proxy": f"http://u:{MARK}@127.0.0.1:3128",
    "close.signing_key": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
}
"""What is right where any word would not be."""


def value_of(name: str) -> str:
    return VALUES.get(name, f"sk_test_{MARK}")


def keep(folder: Path, name: str, text: str, mode: int = 0o600) -> str:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(mode)
    return str(path)


def read_setting(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def secret_settings(model: type[BaseModel], before: str = "") -> set[str]:
    """Every setting whose type holds a secret."""
    found = set()
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            found |= secret_settings(type(field.default), f"{name}.")
        elif SecretStr.__name__ in str(field.annotation):
            found.add(before + name)
    return found


def test_the_table_has_every_secret() -> None:
    assert secret_settings(Settings) == NEEDED_BY.keys()


@pytest.mark.parametrize("name", NEEDED_BY)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_comes_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, end: str) -> None:
    monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.setenv(file_variable(name), keep(tmp_path, "secret", value_of(name) + end))
    assert read_setting(Settings(), name).get_secret_value() == value_of(name)
    given = {file_variable(name): os.environ[file_variable(name)]}
    monkeypatch.delenv(file_variable(name))
    assert read_setting(Settings.of(given), name).get_secret_value() == value_of(name)


def test_it_wins_over_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", keep(tmp_path, "g.toml", 'openai_api_key = "from-toml"\n'))
    monkeypatch.setenv("OPENAI_API_KEY_FILE", keep(tmp_path, "secret", "from-file"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert read_setting(Settings(), "openai_api_key").get_secret_value() == "from-file"


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (None, 0, "OPENAI_API_KEY_FILE: the file cannot be read: No such file or directory"),
        ("", 0o600, "OPENAI_API_KEY_FILE: the file is empty"),
        (" \n", 0o600, "OPENAI_API_KEY_FILE: the file is empty"),
        (MARK, 0o604, "OPENAI_API_KEY_FILE: other users may read or change the file: chmod 600"),
        (MARK, 0o620, "OPENAI_API_KEY_FILE: other users may read or change the file: chmod 600"),
        (f"{MARK}\udcff", 0o600, "OPENAI_API_KEY_FILE: the file is not UTF-8 text"),
        (f"{MARK}\0", 0o600, "OPENAI_API_KEY_FILE: there is a NUL in the file"),
        (f"{MARK}\n{MARK}", 0o600, "OPENAI_API_KEY_FILE: it is empty or has a space, a line break"),
        (MARK * secret_files.BYTES_MAX, 0o600, "OPENAI_API_KEY_FILE: the file is larger than 65536 bytes"),
    ],
)
async def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | None, mode: int, says: str) -> None:
    path = str(tmp_path / MARK) if text is None else keep(tmp_path, MARK, text, mode)
    done = await gateway({"OPENAI_API_KEY_FILE": path}, "config", "check")
    assert (done.status, says in done.error) == (1, True)
    assert MARK not in done.error + done.out + done.noted


async def test_neither_a_folder_nor_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (tmp_path, pipe):
        done = await gateway({"OPENAI_API_KEY_FILE": str(path)}, "config", "check")
        assert "OPENAI_API_KEY_FILE: it is not a regular file" in done.error


async def test_a_secret_in_place_of_the_path_is_not_shown() -> None:
    done = await gateway({"UNKEY_ROOT_KEY_FILE": f"unkey_{MARK}"}, "config", "check")
    assert "UNKEY_ROOT_KEY_FILE: the file cannot be read" in done.error
    assert MARK not in done.error


async def test_both_is_an_error_that_names_both_and_all_are_named_at_once(tmp_path: Path) -> None:
    env = {"OPENAI_API_KEY": MARK, "OPENAI_API_KEY_FILE": keep(tmp_path, "a", MARK), "KEYS__CANARY_FILE": "/nowhere"}
    done = await gateway(env, "config", "check")
    assert "OPENAI_API_KEY and OPENAI_API_KEY_FILE are both set: keep one" in done.error
    assert "KEYS__CANARY_FILE: the file cannot be read" in done.error
    assert MARK not in done.error
    empty = await gateway(env | {"OPENAI_API_KEY": "", "KEYS__CANARY_FILE": ""}, "config", "check")
    assert (empty.status, empty.error) == (0, "")


def test_a_read_only_mount_may_have_any_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, found = keep(tmp_path, "secret", MARK, 0o444), os.statvfs(tmp_path)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY_FILE: other users may read"):
        secret_files.with_file_values({"OPENAI_API_KEY_FILE": path})

    class Mounted:
        f_flag = found.f_flag | os.ST_RDONLY

    # A mount needs rights that a test does not have everywhere; the kernel says this of one.
    monkeypatch.setattr(os, "fstatvfs", lambda _: Mounted)
    assert secret_files.with_file_values({"OPENAI_API_KEY_FILE": path}) == {"OPENAI_API_KEY": MARK}


async def test_config_show_names_the_variable_and_no_value(tmp_path: Path) -> None:
    env = {file_variable(name): keep(tmp_path, variable(name), value_of(name)) for name in NEEDED_BY}
    done = await gateway(env, "config", "show")
    assert done.status == 0
    assert MARK not in done.out
    for name in NEEDED_BY:
        (line,) = (line for line in done.out.splitlines() if f" {name} " in line)
        assert file_variable(name) in line


@pytest.mark.parametrize("login", [f"{MARK}@", f"u:{MARK}@", f"u:{MARK}@{MARK}@"])
async def test_config_show_hides_the_login_in_a_base_url(login: str) -> None:
    env = {"UNKEY_BASE_URL": f"https://{login}unkey.example", "TRACES__OTLP_ENDPOINT": f"http://{login}collector:4318"}
    for arguments in (("config", "show"), ("config", "show", "--json")):
        done = await gateway(env, *arguments)
        assert (done.status, MARK in done.out) == (0, False)
        assert "https://(login hidden)@unkey.example" in done.out
        assert "http://(login hidden)@collector:4318" in done.out
