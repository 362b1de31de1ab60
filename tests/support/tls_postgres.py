"""A PostgreSQL that speaks TLS itself: Debian's, where it is installed. (The wheels' is built without OpenSSL.)"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.servers import free_port, memory_folder

PROGRAMS: Final = tuple(sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")))
START_S: Final = 60.0
READY: Final = "database system is ready to accept connections"
ACCESS: Final = "hostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all 127.0.0.1/32 reject\n"


@contextmanager
def serve_tls_postgres(certificate: Path, password: str) -> Iterator[int]:
    """The port of a server whose user `gateway` needs the password and TLS. `certificate`: a file with the key too."""
    # PostgreSQL does not run as root, and its package makes this user.
    owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    user = None if owner is None else owner.pw_uid
    folder = Path(tempfile.mkdtemp(prefix="gateway-tls-", dir=memory_folder()))
    try:
        data, secret, log = folder / "data", folder / "password", folder / "log"
        for path, text in ((secret, password), (folder / "server.pem", certificate.read_text()), (log, "")):
            path.write_text(text)
            path.chmod(0o600)
        if owner is not None:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, owner.pw_uid, owner.pw_gid)
        program = PROGRAMS[-1]
        make = [str(program.with_name("initdb")), "-D", str(data), "-U", "gateway", "-A", "scram-sha-256", "-N"]
        subprocess.run(
            [*make, f"--pwfile={secret}", "--locale=C"], check=True, capture_output=True, cwd=folder, user=user
        )
        (data / "pg_hba.conf").write_text(ACCESS)
        port = free_port()
        settings = {
            "ssl": "on",
            "ssl_cert_file": folder / "server.pem",
            "ssl_key_file": folder / "server.pem",
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with log.open("ab") as said:
            process = subprocess.Popen([program, "-D", data, *options], stderr=said, stdout=said, cwd=folder, user=user)
        try:
            _await(process, log)
            yield port
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    finally:
        shutil.rmtree(folder)


def _await(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Its own word decides: it listens before its recovery lets anyone in ("the database system is starting up")."""
    until_s = time.monotonic() + START_S
    while READY not in log.read_text():
        if process.poll() is not None or time.monotonic() > until_s:
            raise RuntimeError(f"PostgreSQL does not answer: {log.read_text()[-1000:]}")
        time.sleep(0.05)
