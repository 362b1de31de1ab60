"""The file that `up` leaves for other terminals, and how what `up` prints is spelled for a shell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config.settings import Settings
from gateway.processes import env_file
from gateway.processes.local import of_real_vendors, own_keys
from gateway.sandbox import credentials

VALUES = {"DATABASE_URL": "postgresql://gateway@/x?host=/a b&port=1", "ODD": "it's $HOME `x` \"\\ #1", "EMPTY": ""}


def test_a_shell_reads_what_was_written_and_so_do_we(tmp_path: Path) -> None:
    for _ in range(2):  # every start writes it anew
        path = env_file.write(tmp_path, VALUES)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["env"]
    script = f'. "$1"; exec {sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"'
    seen = subprocess.run(["sh", "-c", script, "sh", path], env={}, check=True, capture_output=True, text=True).stdout
    assert {name: value for name, value in json.loads(seen).items() if name in VALUES} == VALUES
    assert env_file.read(tmp_path) == VALUES


def test_only_what_was_taken_over_from_the_file_is_left_out(tmp_path: Path) -> None:
    assert env_file.read(tmp_path) == {}
    env_file.write(tmp_path, VALUES)
    environ = {**VALUES, "EMPTY": "mine", "PATH": "/bin"}
    assert env_file.without_file_values(environ, env_file.read(tmp_path)) == {"EMPTY": "mine", "PATH": "/bin"}


def test_a_real_vendor_s_key_stays_with_the_user(tmp_path: Path) -> None:
    sandbox = {"OPENAI_API_KEY": credentials.OPENAI_API_KEY, "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    real = frozenset({"openai"})
    base_url = "https://api.openai.com/v1"
    for key, expected in ((credentials.OPENAI_API_KEY, {}), ("sk-mine", {"OPENAI_API_KEY": "sk-mine"})):
        theirs, stale = of_real_vendors(real, Settings.of({"OPENAI_API_KEY": "sk-mine"}))
        path = env_file.write(tmp_path, {"DATABASE_URL": "x"}, theirs=theirs, stale=stale)
        assert "sk-mine" not in path.read_text()
        assert env_file.read(tmp_path) == {"DATABASE_URL": "x"}, "the next start would drop what the user has set"
        shell = sandbox | {"OPENAI_API_KEY": key}
        script = f'set -eu; . "$1"; exec {sys.executable} -c "import json, os; print(json.dumps(dict(os.environ)))"'
        done = subprocess.run(["sh", "-c", script, "sh", path], env=shell, check=True, capture_output=True, text=True)
        assert {name: value for name, value in json.loads(done.stdout).items() if name in sandbox} == {
            "OPENAI_BASE_URL": base_url,
            **expected,
        }
    assert own_keys(frozenset({"openai", "unkey"})) == ["OPENAI_API_KEY", "UNKEY_ROOT_KEY"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("sub/file", "sub/file"),
        ("file", "./file"),
        ("a b/it's", """'a b/it'"'"'s'"""),
        ("/elsewhere/file", "/elsewhere/file"),
    ],
)
def test_paths_work_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert env_file.path_from_here(tmp_path / path) == shown


def test_the_command_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    monkeypatch.setattr(sys, "executable", str(bin_dir / "python"))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert env_file.command() == "bin/python -m gateway"
    (bin_dir / "gateway").touch(mode=0o755)
    assert env_file.command() == "bin/gateway"
    monkeypatch.setenv("PATH", str(bin_dir))
    assert env_file.command() == "gateway"
    other = tmp_path / "other"
    other.mkdir()
    (other / "gateway").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{other}:{bin_dir}")
    assert env_file.command() == "bin/gateway", "another gateway would be called by the bare name"
