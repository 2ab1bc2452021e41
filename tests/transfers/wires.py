"""Wires between client and server that misbehave: cut in the middle, not there yet, never ending."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class Wire:
    """Passes connections on to a port of this machine, cuts as many as it is told after so many bytes, or stalls."""

    def __init__(
        self,
        target: int,
        *,
        port: int = 0,
        cut_after_bytes: int = 0,
        cuts: int = 0,
        stall_after_bytes: int = 1 << 60,
    ) -> None:
        self._target = target
        self._stall_after_bytes = stall_after_bytes
        self._cut_after_bytes = cut_after_bytes
        self.cuts_left = cuts
        self.connections = 0
        self.passed_bytes = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it, and what is open through it."""
        self._closed = True
        for entry in (self._listener, *self._open):
            _end(entry)

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self.connections += 1
            self._open += [near, far]
            counted = [0]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: list[int]) -> None:
        try:
            while data := source.recv(65_536):
                with self._lock:
                    counted[0] += len(data)
                    self.passed_bytes += len(data)
                    cut = self.cuts_left > 0 and self.passed_bytes > self._cut_after_bytes
                    if cut:
                        self.cuts_left -= 1
                if cut:
                    break
                while counted[0] > self._stall_after_bytes and not self._closed:
                    time.sleep(0.05)
                sink.sendall(data)
        except OSError:
            pass
        for entry in (source, sink):
            _end(entry)


class Answering:
    """A server that answers every connection with what a function writes."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of a file there."""
        return f"http://127.0.0.1:{self.port}/file"

    def close(self) -> None:
        """End it."""
        self._closed = True
        _end(self._listener)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self.asked.append(connection.recv(65_536))
            self._answer(connection)
        except OSError:
            pass
        _end(connection)


def drip(head: bytes, pause_s: float = 0.05) -> Callable[[socket.socket], None]:
    """Return an answer that sends `head` and then one byte at a time, for ever."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x")
            time.sleep(pause_s)

    return answer


def _end(entry: socket.socket) -> None:
    with contextlib.suppress(OSError):
        entry.shutdown(socket.SHUT_RDWR)
    entry.close()
