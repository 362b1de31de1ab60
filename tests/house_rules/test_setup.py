"""Set-up of a fresh clone (Makefile, .ci/install.py): which Pythons it takes, bytecode, and being stopped."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house_rules.test_packaging import SHIPS, script
from tests.support.source import TOP


@pytest.mark.parametrize(("version", "taken"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)])
def test_set_up_takes_only_these_pythons(tmp_path: Path, version: tuple[int, int], taken: bool) -> None:
    (tmp_path / ".ci").mkdir()
    for file in ("Makefile", "requirements.lock"):
        shutil.copy(TOP / file, tmp_path)
    (tmp_path / ".ci" / "install.py").write_text("print('set up')\n")
    python = tmp_path / "python"
    # Answers the question of the Makefile as that version would; runs everything else as it is.
    python.write_text(
        f"""#!/bin/sh
[ "$1" = -c ] && exec '{sys.executable}' -c "import sys; sys.version_info = {(*version, 0, "final", 0)}
$2"
exec '{sys.executable}' "$@"
"""
    )
    python.chmod(0o755)
    make = ["make", "--no-print-directory", "-C", str(tmp_path), ".venv/.ready", f"PYTHON={python}"]
    done = subprocess.run(make, capture_output=True, text=True)
    assert (done.returncode == 0, "set up" in done.stdout) == (taken, taken)
    assert ("Python 3.11, 3.12 or 3.13 is needed (not 3.14 yet)" in done.stderr) is not taken


def test_set_up_writes_bytecode_also_where_python_is_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install = script("install")
    library = tmp_path / "site-packages" / "library"
    library.mkdir(parents=True)
    (library / "good.py").write_text("ONE = 1\n")
    (library / "template.py").write_text("class {{ name }}:\n")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "here.py").touch()
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    for name, value in (("TOP", tmp_path), ("OURS", ["ours"]), ("LOG", tmp_path / "log"), ("VENV", Path(sys.prefix))):
        monkeypatch.setattr(install, name, value)
    install._compile(library.parent, 0.0)
    assert {path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")} == {"good", "here"}
    assert set(SHIPS) == set(script("install").OURS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_set_up_that_is_stopped_says_so_without_a_traceback(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / ".ci").mkdir()
    for file in (".ci/install.py", "pyproject.toml", "requirements.lock"):
        shutil.copy(TOP / file, tmp_path / file)
    command = [sys.executable, ".ci/install.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout
        assert "Setting up" in process.stdout.readline()
        os.killpg(process.pid, number)  # as a terminal does it: to the whole group
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert ("the next run starts again" in errors) is (number == signal.SIGINT)
    assert not (tmp_path / ".venv" / ".ready").exists()
