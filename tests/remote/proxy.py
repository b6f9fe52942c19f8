"""A line that fails on command: everything between a client and a server goes through it."""

import socket
import struct
import threading
import time
from contextlib import suppress

CHUNK = 2**16


class FaultProxy:
    """Forwards connections and counts bytes; cuts all lines once so many have passed, or stalls."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.up = self.down = 0  # bytes: client -> server, server -> client
        self.cut_up_at: int | None = None
        self.cut_down_at: int | None = None
        self.cuts = 0
        self.lines = 0  # connections made so far
        self.is_refusing = False
        self.pause_s = 0.0  # before each piece that passes: a slow line
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections at once, as a pulled line does: with a reset."""
        self._flows.set()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
            self._open.clear()
            self.cuts += 1

    def stall(self) -> None:
        """Let nothing pass any more, without a word to either side."""
        self._flows.clear()

    def flow(self) -> None:
        """Let bytes pass again."""
        self._flows.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_refusing:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(self._target)
                except OSError:  # nobody there now
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                    self.lines += 1
                for pair, name in (((client, server), "up"), ((server, client), "down")):
                    threading.Thread(target=self._forward, args=(*pair, name), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, name: str) -> None:
        with suppress(OSError):
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(CHUNK):
                self._flows.wait()
                time.sleep(self.pause_s)
                target.sendall(data)
                if self._count(name, len(data)):
                    self.cut()
                    return
        for sock in (source, target):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _count(self, name: str, count: int) -> bool:
        """Count bytes; say whether the line is to be cut now."""
        with self._lock:
            total = getattr(self, name) + count
            setattr(self, name, total)
            limit = getattr(self, f"cut_{name}_at")
            is_over = limit is not None and total >= limit
            if is_over:
                setattr(self, f"cut_{name}_at", None)
            return is_over
