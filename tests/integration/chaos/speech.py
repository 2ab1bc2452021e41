"""How a test and its member processes speak: MessagePack maps with a length before each, over one local connection."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final

import msgspec

MESSAGE_BYTES_MAX: Final = 16 << 20
encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


async def read_message(reader: asyncio.StreamReader) -> Any:
    """Return the next message; IncompleteReadError at the end."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    assert size <= MESSAGE_BYTES_MAX
    return decode(await reader.readexactly(size))


def write_message(writer: asyncio.StreamWriter, message: Any) -> None:
    """Queue one message; one for a connection that is gone already is dropped, as the transport would, but unsaid."""
    if writer.is_closing():
        return
    body = encode(message)
    writer.write(len(body).to_bytes(4, "big") + body)


class Gone(Exception):
    """The process that was asked has ended, or does not answer."""


class Caller:
    """The test's end of a connection to one member process; answers come in any order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._task = asyncio.create_task(self._listen())

    @classmethod
    async def connect(cls, port: int) -> Caller:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, verb: str, *, patience_s: float = 15.0, **fields: Any) -> Any:
        """Ask and return the answer; Gone when none can come."""
        if self._task.done():
            raise Gone(verb)
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        write_message(self._writer, {"number": number, "verb": verb, **fields})
        try:
            return await asyncio.wait_for(answer, patience_s)
        except TimeoutError as late:
            raise Gone(f"{verb} was not answered in {patience_s:g} s") from late
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """End the connection."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.transport.abort()

    async def _listen(self) -> None:
        try:
            while True:
                message = await read_message(self._reader)
                answer = self._waiting.get(message["number"])
                if answer is not None and not answer.done():
                    answer.set_result(message["answer"])
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(Gone("the process has ended"))
