"""One `serve` takes over from another on the same host and data folder, without a refused or reset connection.

The listening sockets themselves go from the old parent to the new one, over a Unix socket in the data folder. Another
socket on the same port (SO_REUSEPORT) would not do: connections that wait in the queue of the one that is closed are
reset. The steps, each of which can fail and leave the old gateway serving:

1. The new parent connects, and gets the sockets. Its proxies start, in slots of the journal of their own, and accept
   beside the old ones.
2. `keeper`: the old parent stops its keeper, whose lock the new keeper takes. One keeper at a time reads the journal.
3. `leave`: the old proxies let go of the sockets and finish their calls; the new keeper confirms those as well.

When the connection ends before `leave`, the old parent starts its keeper again.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog

from gateway.cli.text import Say
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.processes.stack import Gateway

NAME: Final = "serve.sock"
SOCKETS_MAX: Final = 250
"""What one message can carry (SCM_MAX_FD is 253)."""
GREETING: Final = b"v1 "
"""Before the process id and the slots."""
GREETING_BYTES_MAX: Final = 4096
KEEPER: Final = b"keeper\n"
LEAVE: Final = b"leave\n"
DONE: Final = b"done\n"
ANSWER_S: Final = 60.0
"""Seconds for a step of the other side: the last turn of a keeper."""
AGAIN_S: Final = 1.0
"""Seconds after which another one may ask, so that a descriptor that is missing makes no busy loop."""
STEP_S_MAX: Final = 900.0
"""Seconds for a successor to get ready, PostgreSQL and Redis waited for."""
_PEER: Final = struct.Struct("3i")
_log: Final = structlog.get_logger("gateway.processes")


class Successor:
    """In the parent that serves: what it gives to the one that takes over."""

    def __init__(
        self,
        folder: Path,
        sockets: Sequence[socket.socket],
        slots: Sequence[int],
        gateway: Gateway,
    ) -> None:
        """`sockets`: those that listen for the admin address, and for clients. `slots`: those of its proxies."""
        self._folder: Final = folder
        self._slots: Final = slots
        self._sockets: Final = sockets
        self._gateway: Final = gateway
        self._listener: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def open(self, stack: AsyncExitStack) -> None:
        """From now on it can be asked; before that, or in its place, whoever served in this folder was."""
        stack.callback(self._listener.close)
        try:
            self._bind()
        except OSError as error:  # not every file system has sockets; calls need none
            _log.warning("no other gateway can take over from this one", detail=error.strerror)
            self._listener.close()

    def _bind(self) -> None:
        draft, name = f"{NAME}.{os.getpid()}", NAME
        with _short(self._folder) as folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}/{draft}")
            self._listener.bind(f"{folder}/{draft}")
            os.chmod(f"{folder}/{draft}", 0o600)
            self._listener.listen(8)
            os.rename(f"{folder}/{draft}", f"{folder}/{name}")
        self._listener.setblocking(False)

    def close(self) -> None:
        """Lets go of the sockets: they are the other one's."""
        for each in (*self._sockets, self._listener):
            each.close()

    async def wait(self) -> None:
        """Returns once another `serve` has taken over."""
        loop = asyncio.get_running_loop()
        if self._listener.fileno() < 0:
            await asyncio.Event().wait()  # nobody can ask
        while True:
            try:
                asked, _ = await loop.sock_accept(self._listener)
                with asked:
                    if _is_ours(asked) and await self._give(asked):
                        return
            except OSError as error:  # a TimeoutError is one
                _log.warning("the take-over has failed, this gateway goes on", error=type(error).__name__)
                await asyncio.sleep(AGAIN_S)

    async def _give(self, asked: socket.socket) -> bool:
        loop = asyncio.get_running_loop()
        numbers = " ".join(map(str, (os.getpid(), *self._slots)))
        socket.send_fds(asked, [GREETING + numbers.encode() + b"\n"], [each.fileno() for each in self._sockets])
        if await _line(asked, STEP_S_MAX) != KEEPER:
            return False
        _log.info("another gateway takes over: the keeper stops")
        await self._gateway.stop_keeper()
        is_over = False
        with contextlib.suppress(OSError):  # a TimeoutError is one
            await loop.sock_sendall(asked, DONE)
            is_over = await _line(asked, STEP_S_MAX) == LEAVE
        if not is_over:
            _log.warning("the other gateway has given up, this one goes on")
            await self._gateway.start_keeper()
            return False
        with contextlib.suppress(OSError):  # whether it hears that or not
            await loop.sock_sendall(asked, DONE)
        return True


class Predecessor:
    """In the parent that takes over: the one that serves."""

    def __init__(self, asked: socket.socket, sockets: Sequence[socket.socket], slots: Sequence[int]) -> None:
        """`sockets`: as they came, the admin's first. `slots`: its proxies have these, also while one restarts."""
        self.slots: Final = slots
        self._asked: Final = asked
        self._unused = list(sockets)

    def listeners(self, host: str, port: int) -> list[socket.socket]:
        """The sockets that listen there, if any do: this gateway may be configured for another address. Once."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        there = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        found = [each for each in self._unused if each.family == family and each.getsockname()[:2] == there[:2]]
        self._unused = [each for each in self._unused if each not in found]
        return found

    async def stop_keeper(self) -> None:
        """Returns when it has let go of the journal, or is no longer there itself."""
        await self._ask(KEEPER)

    async def leave(self) -> None:
        """From now on this gateway serves, and the other one only finishes its calls."""
        for each in self._unused:  # else clients would wait there for an answer that nobody gives
            each.close()
        await self._ask(LEAVE)

    async def _ask(self, what: bytes) -> None:
        # One that was killed meanwhile has nothing to say against it.
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._asked, what)
            await _line(self._asked, ANSWER_S + STEP_S_MAX)


async def find_predecessor(folder: Path, stack: AsyncExitStack, say: Say) -> Predecessor | None:
    """The gateway that serves from this data folder, with its sockets; None when there is none.

    Raises ConfigError: it is another user's, of a version that this one does not understand, or just ending.
    """
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stack.callback(asked.close)
    asked.setblocking(False)
    try:
        with _short(folder) as short:
            await asyncio.get_running_loop().sock_connect(asked, f"{short}/{NAME}")
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        fix = "It must be started as the user of the gateway that serves."
        raise ConfigError(f"--take-over: {folder / NAME}: {error.strerror}. {fix}") from None
    told, numbers = await _greeting(asked)
    sockets = [socket.socket(fileno=number) for number in numbers]
    for each in sockets:
        stack.callback(each.close)
    if not told.startswith(GREETING) or not sockets:
        raise ConfigError(f"--take-over: the gateway that serves from {folder} is just ending; try again")
    pid, *slots = told.removeprefix(GREETING).decode().split()
    say(f"taking over from process {pid}")
    return Predecessor(asked, sockets, [int(slot) for slot in slots])


async def _greeting(asked: socket.socket) -> tuple[bytes, list[int]]:
    loop = asyncio.get_running_loop()
    come = asyncio.Event()
    loop.add_reader(asked, come.set)  # called in every turn of the loop, until it is removed
    try:
        await asyncio.wait_for(come.wait(), ANSWER_S)
    except TimeoutError:
        raise DependencyDown("the gateway that serves", "it does not answer; stop it, then start this one") from None
    finally:
        loop.remove_reader(asked)
    with contextlib.suppress(ConnectionResetError):
        told, numbers, _, _ = socket.recv_fds(asked, GREETING_BYTES_MAX, SOCKETS_MAX)
        return told, numbers
    return b"", []


async def _line(asked: socket.socket, within_s: float) -> bytes:
    """What the other side says; empty when it is gone."""
    loop, told = asyncio.get_running_loop(), b""
    async with asyncio.timeout(within_s):
        while not told.endswith(b"\n"):
            piece = await loop.sock_recv(asked, 64)
            if not piece:
                return b""
            told += piece
    return told


def _is_ours(asked: socket.socket) -> bool:
    """Whether its process is of our own user, or root's."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = _PEER.unpack(asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return uid in (0, os.getuid())


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A short name of the folder: the address of a Unix socket has 107 bytes at most."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{number}"
        yield short if os.path.isdir(short) else str(folder)
    finally:
        os.close(number)
