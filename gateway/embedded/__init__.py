"""Real PostgreSQL and real Valkey as child processes of ours, from the wheels of the extra `embedded`.

For `gateway up`, `gateway demo` and the tests; `serve` uses servers that others run. Only gateway/processes/
and tests import it; everything else sees a `database_url` and a `redis_url`.

Where things are, under the data folder:
  postgres/ and valkey/   the data, kept over restarts; the Unix sockets lie in them (mode 0700: nobody else gets in,
                          no TCP port is open). Where that path is too long for a socket, a private folder under the
                          system's temporary one takes the sockets.
  postgres.log, valkey.log   what the servers say; `.1` is that of the start before.
  embedded.lock           held (flock) by us and by the guards while the servers run, with our pid in it.

Life and death: each server runs under a guard (guard.py), a process that stops it cleanly when we close its pipe and
just as well when we are killed. A signal from the terminal reaches only us: guards and servers have sessions of
their own.

As root: PostgreSQL refuses to run as root, so both servers run as an unprivileged user that exists already: whoever
owns the data, else `postgres`, else `nobody`. No user is ever created and no mode is changed that is not ours.
Where that user cannot reach the wheels' files (a virtual environment inside /root), a private copy of the servers is
laid beside the data; where it cannot reach the data folder itself, the data lie in a folder of ours below /var/lib
(or the system's temporary folder), and `embedded.place` in the data folder says which.
"""

from gateway.embedded.errors import AlreadyRunning, EmbeddedError
from gateway.embedded.servers import ALL, Embedded, ephemeral, start, start_sync

__all__ = ["ALL", "AlreadyRunning", "Embedded", "EmbeddedError", "ephemeral", "start", "start_sync"]
