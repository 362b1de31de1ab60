"""What we are made of, and what is known to be wrong with it: `make sbom`, `make audit-deps`. Standard library only.

The tools come from their own lock, into an environment of their own, so that nothing of them is installed where the
gateway runs. Both judge requirements.lock as it is: the packages of the gateway, of its extras and of the tests.

    python .ci/audit.py sbom     writes dist/sbom.cdx.json (CycloneDX)
    python .ci/audit.py deps     asks the advisory service about every package; needs a network
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LOCK = TOP / "requirements.lock"
TOOLS = TOP / ".ci" / "audit.lock"
VENV = TOP / "build" / "audit"
STAMP = VENV / ".ready"
SBOM = TOP / "dist" / "sbom.cdx.json"
UNKNOWN = "could not be audited"
"""What pip-audit says of a package about which it has got no answer."""
AWAY = ("ConnectionError", "Max retries exceeded", "Failed to connect", "ServiceError", "connection")


def main() -> None:
    """Exits 1 when something is known to be wrong, 2 when nothing is known."""
    if sys.argv[1:] not in (["sbom"], ["deps"]):
        sys.exit("usage: python .ci/audit.py sbom|deps")
    install_tools()
    sys.exit(write_sbom() if sys.argv[1] == "sbom" else audit_dependencies())


def install_tools() -> None:
    """Makes the tools' environment unless it is there already."""
    wanted = f"{sys.version}\n{TOOLS.read_text()}"
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    print("Installing the tools of .ci/audit.lock, once", flush=True)
    venv.create(VENV, with_pip=True, clear=True)
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:"]
    if subprocess.run([*pip, *quiet, "-r", TOOLS], check=False).returncode != 0:
        sys.exit("The tools of .ci/audit.lock could not be installed; pip's own words are above.")
    STAMP.write_text(wanted)


def write_sbom() -> int:
    """The software bill of materials, the same bytes for the same lock."""
    SBOM.parent.mkdir(exist_ok=True)
    tool = [VENV / "bin" / "cyclonedx-py", "requirements", "--pyproject", TOP / "pyproject.toml"]
    form = ["--output-reproducible", "--of", "JSON", "--output-file", SBOM, LOCK]
    # It warns that it does not know who needs whom: a lock does not say.
    status = subprocess.run([*tool, *form], check=False, env=os.environ | {"PYTHONWARNINGS": "ignore"}).returncode
    if status == 0:
        print(f"wrote {SBOM.relative_to(TOP)}")
    return status


def audit_dependencies() -> int:
    """Known vulnerabilities of what the lock pins. A package that nobody could be asked about is no clean one."""
    tool = [VENV / "bin" / "pip-audit", "--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    done = subprocess.run([*tool, "-r", LOCK], check=False, capture_output=True, text=True)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    if done.returncode != 0 and not done.stdout.strip() and any(word in done.stderr for word in (UNKNOWN, *AWAY)):
        sys.stderr.write(
            "\nNothing was audited: the advisory service did not answer. "
            "`make audit-deps` needs a network that reaches it.\n"
        )
        return 2
    return done.returncode


if __name__ == "__main__":
    main()
