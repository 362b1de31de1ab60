"""A wrong configuration: every mistake named at once, where it was made, what would be right, never a value."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.config.problems import find_misspelled, names
from gateway.config.secret_table import variable
from gateway.config.settings import Settings
from tests.config.test_example import uncommented
from tests.support.invoke import gateway

SECRET = "canary-7f3a"


async def said(env: Mapping[str, str]) -> str:
    """What `gateway config check` says, after the first line."""
    done = await gateway(dict(env), "config", "check")
    assert done.status == (1 if done.error else 0)
    assert SECRET not in done.error + done.out
    return done.error


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"KEYS__FRSH_S": SECRET}, "KEYS__FRSH_S: there is no such setting; did you mean KEYS__FRESH_S?"),
        ({"GATEWAY_WORKER": SECRET}, "GATEWAY_WORKER: there is no such setting; did you mean GATEWAY_WORKERS?"),
        ({"GATEWAY_DATADIR": SECRET}, "did you mean GATEWAY_DATA_DIR?"),
        ({"UPSTREAM__FRESH_S": "1"}, "UPSTREAM__FRESH_S: there is no such setting; did you mean KEYS__FRESH_S?"),
        ({"GATEWAY_PORT": SECRET}, "GATEWAY_PORT: Input should be a valid integer"),
        ({"GATEWAY_PORT": "70000"}, "GATEWAY_PORT: Input should be less than or equal to 65535"),
        ({"GATEWAY_WORKERS": "0"}, "GATEWAY_WORKERS: Input should be greater than or equal to 1"),
        ({"BILLING__WINDOW_S": "7000"}, "BILLING__WINDOW_S: it must divide a day of 86400 s"),
        ({"BILLING__WINDOW_S": "604800"}, "BILLING__WINDOW_S: it must divide a day of 86400 s"),
        ({"BILLING__WINDOW_S": "0"}, "BILLING__WINDOW_S: Input should be greater than or equal to 1"),
        ({"OPENAI_BASE_URL": "https://api.openai.com"}, "OPENAI_BASE_URL: it must end in /v1"),
        ({"OPENAI_BASE_URL": "api.openai.com/v1"}, "OPENAI_BASE_URL: it must be a URL that begins with http:// or"),
        ({"UNKEY_BASE_URL": f"https://a.example/?k={SECRET}"}, "UNKEY_BASE_URL: it must have neither a query"),
        ({"STRIPE_BASE_URL": "https://[x"}, "STRIPE_BASE_URL: it is not a URL"),
        ({"STRIPE_SECRET_KEY": f"pk_{SECRET}"}, "STRIPE_SECRET_KEY: this is a publishable key"),
        ({"DATABASE_URL": f"mysql://u:{SECRET}@h/d"}, "DATABASE_URL: it must begin with postgresql:// or postgres://"),
        ({"DATABASE_URL": "postgresql://h/d?sslrootcert=/nope"}, "DATABASE_URL: sslrootcert=/nope cannot be read"),
        ({"REDIS_URL": "rediss://h?ssl_ca_certs=/nope"}, "REDIS_URL: ssl_ca_certs=/nope cannot be read: No such file"),
        ({"REDIS_URL": "redis://h/0?db=2"}, "REDIS_URL: it names two databases"),
        ({"REDIS_URL": SECRET}, "REDIS_URL: it must begin with redis:// or rediss:// or unix://"),
        ({"OPENAI_BASE_URL": "http://h/a b/v1"}, "OPENAI_BASE_URL: there is a space, a line break"),
        ({"OPENAI_BASE_URL": "http://10.0.0.1/v1"}, "OPENAI_BASE_URL: http:// is only for this machine"),
        ({"UNKEY_BASE_URL": "http://api.unkey.com"}, "UNKEY_BASE_URL: http:// is only for this machine"),
        ({"STRIPE_BASE_URL": f"http://127.0.0.1:{SECRET}@s.example"}, "STRIPE_BASE_URL: http:// is only for"),
        ({"DAILY_BASE_URL": "HTTP://localhost.example/v1"}, "DAILY_BASE_URL: http:// is only for this machine"),
        ({"CORS__ORIGINS": f"https://{SECRET}/path,*"}, "CORS__ORIGINS: an origin is https://HOST"),
        ({"CORS__ORIGINS": f'["{SECRET}'}, "CORS__ORIGINS: it must be a list: a,b or"),
        ({"CORS__ORIGINS": "[1]"}, "CORS__ORIGINS: it must be a list: a,b or"),
        ({"UPSTREAM__TOTAL_S": "5000"}, "journal.open_max_s must be more than upstream.total_s"),
        ({"GATEWAY_CONFIG": "/nowhere/g.toml"}, "GATEWAY_CONFIG: /nowhere/g.toml cannot be read: No such file"),
    ],
)  # fmt: skip
async def test_a_mistake_in_the_environment(env: dict[str, str], says: str) -> None:
    assert says in await said(env)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[keys]\nfrsh_s = 5\n", "keys.frsh_s (in {path}): there is no such setting; did you mean keys.fresh_s?"),
        ("fresh_s = 5\n", "fresh_s (in {path}): there is no such setting; did you mean keys.fresh_s?"),
        ("[nonsense]\nx = 5\n", "nonsense (in {path}): there is no such setting"),
        (f'[upstream]\ntotal_s = "{SECRET}"\n', "upstream.total_s (in {path}): Input should be a valid number"),
        ("keys = 3\n", "keys (in {path}): it must be a table, [keys]"),
        ("[cors]\norigins = 3\n", "cors.origins (in {path}): it must be a list"),
        ('[cors]\norigins = ["*", "x"]\n', "cors.origins (in {path}): an origin is"),
        ("[keys\n", "GATEWAY_CONFIG: {path} is not TOML: Expected ']' at the end of a table declaration (at line 1"),
        ("\udcff", "GATEWAY_CONFIG: {path} is not UTF-8 text"),
    ],
)
async def test_a_mistake_in_the_file(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert says.format(path=path) in await said({"GATEWAY_CONFIG": str(path)})


CREDENTIALS = ("OPENAI_API_KEY", "UNKEY_ROOT_KEY", "STRIPE_SECRET_KEY", "DAILY_API_KEY", "KEYS__CANARY")


async def test_a_credential_that_no_header_can_hold_is_refused() -> None:
    for value in (f"{SECRET}\nX-Evil: 1", f"{SECRET} x", f"{SECRET}é", " \n"):
        lines = await said(dict.fromkeys(CREDENTIALS, value))
        for name in CREDENTIALS:
            assert f"{name}: it is empty or has a space" in lines


@pytest.mark.parametrize("name", CREDENTIALS)
def test_white_space_around_a_credential_is_removed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, f" {SECRET}\r\n")
    loaded = Settings()
    secret = loaded.keys.canary if name == "KEYS__CANARY" else getattr(loaded, name.lower())
    assert secret is not None
    assert secret.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://a.example", ("https://a.example",)),
        ("https://a.example, https://b.example", ("https://a.example", "https://b.example")),
        ('["https://a.example", "*"]', ("https://a.example", "*")),
    ],
)
def test_a_list_is_given_with_commas_or_as_json(
    monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CORS__ORIGINS", text)
    assert Settings().cors.origins == origins


@pytest.mark.parametrize("value", ["x", "*", "a,b", "[", "{", "3", "null", "[1]", '{"a": 1}'])
def test_any_value_is_right_or_a_validation_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for name in names():
        with monkeypatch.context() as patch:
            patch.setenv(variable(name), value)
            with contextlib.suppress(ValidationError):  # what the command line turns into one line
                Settings()


async def test_the_bare_name_of_a_section_is_somebody_else_s_variable() -> None:
    sections = {name.partition(".")[0].upper() for name in names() if "." in name}
    env = dict.fromkeys(sections, f"/var/{SECRET}")
    done = await gateway(env, "config", "check")
    assert (done.status, done.error, SECRET in done.out) == (0, "", False)
    for section in sections:
        assert f"warning: {section}: ignored; the settings of this section are {section}__" in done.out
    assert Settings.of(env) == Settings()


async def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("[flush]\nbatch_rows_max = 0\n")
    found = await said({"GATEWAY_CONFIG": str(path), "KEYS__FRSH_S": "1", "GATEWAY_PROT": "1", "OPENAI_BASE_URL": "x"})
    assert len(found.splitlines()) == 5  # a headline and four


async def test_the_example_with_every_setting_is_right(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(uncommented())
    assert await said({"GATEWAY_CONFIG": str(path)}) == ""


def test_what_others_call_gateway_is_not_ours() -> None:
    theirs = ("GATEWAY_VERSION", "GATEWAY_SERVICE_HOST", "GATEWAY_PORT_8080_TCP_ADDR", "GATEWAY_CONFIG", "GATEWAYS")
    assert find_misspelled(dict.fromkeys(theirs, "x")) == []
    assert find_misspelled({variable(name): "x" for name in names()}) == []


async def test_show_says_where_a_value_comes_from_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f'unkey_root_key = "{SECRET}"\n[keys]\nfresh_s = 7\nstale_s = 8\n')
    env = {
        "GATEWAY_CONFIG": str(path),
        "KEYS__FRESH_S": "9",
        "DATABASE_URL": f"postgresql://u:{SECRET}@db.example.com:6543/ledger?password={SECRET}",
        "OPENAI_API_KEY": SECRET,
    }
    done = await gateway(env, "config", "show", "--json")
    assert SECRET not in done.out
    shown = {line["name"]: (line["value"], line["source"]) for line in json.loads(done.out)}
    assert list(shown) == names()
    assert shown["keys.fresh_s"] == ("9.0", "environment")
    assert shown["keys.stale_s"] == ("8.0", str(path))
    assert shown["keys.timeout_s"] == ("1.0", "default")
    assert shown["unkey_root_key"] == ("set", str(path))
    assert shown["redis_url"] == (None, "default")
    assert shown["database_url"] == ("set: postgresql://db.example.com:6543/ledger", "environment")
    table = await gateway(env, "config", "show")
    assert SECRET not in table.out
    assert "db.example.com" in table.out
