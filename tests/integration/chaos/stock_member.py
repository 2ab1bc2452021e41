"""One member of stock PySyncObj 0.3.17 as shipped: its own transport, its own journal, pickle and all.

    python -m tests.integration.chaos.stock_member CONFIG.json

It imports nothing of IceProd P2P that would change PySyncObj, and is here so that the harness can be seen to see
the loss.  A key counts as acknowledged when PySyncObj calls back with SUCCESS.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

from tests.integration.chaos.speech import read_message, write_message


class Keys(SyncObj):
    """A replicated set of numbers."""

    def __init__(self, own: str, others: list[str], conf: SyncObjConf) -> None:
        self.held: set[int] = set()
        super().__init__(own, others, conf)

    @replicated
    def add(self, key: int, padding: bytes) -> bool:
        self.held.add(key)
        return True


class StockMember:
    """The process."""

    def __init__(self, config: dict[str, Any]) -> None:
        conf = SyncObjConf(
            bindAddress=config["listen"],
            journalFile=str(Path(config["directory"]) / "journal"),
            autoTick=True,
        )
        self._keys = Keys(config["own"], config["others"], conf)

    async def serve(self) -> None:
        """Run until the process is ended."""
        asking = await asyncio.start_server(self._asked, "127.0.0.1", 0)
        print(asking.sockets[0].getsockname()[1], flush=True)
        await asking.serve_forever()

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                message = await read_message(reader)
                number = message["number"]

                def answer(value: Any, number: int = number) -> None:
                    loop.call_soon_threadsafe(write_message, writer, {"number": number, "answer": value})

                if message["verb"] == "add":
                    self._keys.add(
                        message["key"],
                        message["padding"],
                        callback=lambda _, reason, answer=answer: answer(
                            {"acknowledged": reason == FAIL_REASON.SUCCESS}
                        ),
                    )
                elif message["verb"] == "held":
                    answer({"keys": sorted(self._keys.held)})
                else:
                    leader = self._keys._getLeader()
                    own = leader is not None and leader == self._keys.selfNode
                    answer({"role": "leader" if own else "follower"})
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()


if __name__ == "__main__":
    member = StockMember(json.loads(Path(sys.argv[1]).read_text()))
    asyncio.run(member.serve())
