"""A TCP proxy between the loop and its broker: slow, silent, or away, as a fault wants it."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

HOST: Final = "127.0.0.1"
_PIECE: Final = 65_536  # bytes that are on their way at a time, of each connection and direction
_ANSWER_S: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: whoever is cut off is told so by an RST


@dataclass(eq=False)
class _Link:
    """A connection of a client, and the broker's end of it; `lost`: it has none any more."""

    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter | None = None
    lost: bool = False


class Proxy:
    """Listens on `port` of this machine and leads to `target`, from a thread of its own.

    Every method may be called from any thread, and has been done when it returns.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self._links: set[_Link] = set()
        self._delay_s = self._rate = 0.0
        self._forgets = False
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def address(self) -> str:
        """Where clients find it, as `host:port`."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Listens from now on. Raises `OSError` where the port is taken."""
        self._thread.start()
        self._flows.set()
        self._do(self._open)

    def close(self) -> None:
        """Cuts everything, and ends."""
        if self._thread.is_alive():
            self._do(self._end)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    # what is wrong with it

    def slow(self, delay_s: float, rate: float) -> None:
        """Everything takes `delay_s` to twice that longer; `rate`: bytes a second of a connection.

        In each direction; 0: as fast as it goes.
        """
        self._delay_s, self._rate = delay_s, rate

    def hold(self) -> None:
        """Nothing comes through; what is sent arrives when it is mended, as after lost packets."""
        self._do(self._hold)

    def forget(self) -> None:
        """The broker's ends are gone, and no client hears of it: half-open connections.

        What clients send now, also on new connections, is never answered. They are cut off when it
        is mended.
        """
        self._do(self._forget)

    def cut(self) -> None:
        """Ends all connections, and refuses new ones."""
        self._do(self._cut)

    def mend(self) -> None:
        """All is as it should be, but for slowness."""
        self._do(self._mend)

    def _do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(_ANSWER_S)

    # in its thread

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port, limit=_PIECE)

    async def _hold(self) -> None:
        self._flows.clear()

    async def _forget(self) -> None:
        self._forgets = True
        for link in self._links:
            link.lost = True
            if link.broker is not None:
                _abort(link.broker)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in self._links:
            _abort(link.client)

    async def _mend(self) -> None:
        self._forgets = False
        for link in self._links:
            if link.lost:
                _abort(link.client)
        if self._server is None:
            await self._open()
        self._flows.set()

    async def _end(self) -> None:
        await self._cut()
        self._flows.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        link = _Link(client, lost=self._forgets)
        self._links.add(link)
        try:
            if not link.lost:
                await self._connect(link, reader)
            while link.lost and await reader.read(_PIECE):
                pass
        except (OSError, asyncio.CancelledError):
            pass  # cut off, or the broker is not there
        finally:
            self._links.discard(link)
            for writer in (link.client, link.broker):
                if writer is not None:
                    writer.close()

    async def _connect(self, link: _Link, reader: asyncio.StreamReader) -> None:
        """Carries bytes in both directions until one of the two ends it."""
        answers, link.broker = await asyncio.open_connection(HOST, self.target, limit=_PIECE)
        ways = [
            asyncio.ensure_future(self._carry(reader, link.broker)),
            asyncio.ensure_future(self._carry(answers, link.client)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                if self._delay_s or self._rate:
                    wait_s = len(data) / self._rate if self._rate else 0.0
                    await asyncio.sleep(self._delay_s + wait_s)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


__all__ = ["HOST", "Proxy"]
