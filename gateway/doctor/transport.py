"""Whether what goes to PostgreSQL and Redis over a network is encrypted, and to the right server."""

from gateway.config.connection_string import take_apart
from gateway.config.database_logins import PROCESSES, setting
from gateway.config.redis_url import read_redis_url
from gateway.config.settings import Settings
from gateway.doctor.findings import CheckResult
from gateway.kit.loopback import is_loopback


def check_stores_tls(settings: Settings) -> list[CheckResult]:
    """A warning for each store on another machine whose certificate is not verified."""
    found = []
    for name in ("database_url", *map(setting, PROCESSES)):
        database = getattr(settings, name)
        if database is not None and not is_postgres_safe(database.get_secret_value()):
            says = f"{name.upper()}: PostgreSQL is on another machine, and its certificate is not verified"
            fix = "add sslmode=verify-full, and sslrootcert for your own CA"
            found.append(CheckResult("postgres", "warn", says, fix))
    for name in ("redis_url", "limits_redis_url"):
        redis = getattr(settings, name)
        if redis is not None and not is_redis_safe(redis.get_secret_value()):
            says = f"{name.upper()}: Redis is on another machine, and its certificate is not verified"
            found.append(CheckResult("redis", "warn", says, "use rediss://, with ssl_ca_certs for your own CA"))
    return found


def is_postgres_safe(url: str) -> bool:
    """Whether it leads to this machine or to a server that proves who it is."""
    parts = take_apart(url)
    hosts = parts.options.get("host", "").split(",") if parts.options.get("host") else [h.name for h in parts.hosts]
    if all(host.startswith("/") or is_loopback(host) for host in hosts):
        return True
    return parts.options.get("sslmode") == "verify-full" or parts.options.get("sslrootcert") == "system"


def is_redis_safe(url: str) -> bool:
    """The same."""
    read = read_redis_url(url)
    hosts = [name for name, _ in read.sentinels] or [str(read.options.get("host", ""))]
    if read.kind == "unix" or all(map(is_loopback, hosts)):
        return True
    verifies = read.options.get("ssl_cert_reqs", "required") == "required"
    return read.kind == "tls" and verifies and read.options.get("ssl_check_hostname", True) is True
