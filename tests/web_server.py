"""A real web server on loopback that counts what it is asked for."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; `asked` is what was asked for, `answer` a status for all of it instead."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.answer = 0
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))

    def chunks(self) -> list[str]:
        return sorted(path for path, _ in self.asked if "/c/" in path)


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.server.answer:
            self.send_error(self.server.answer)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve a folder until the end of the block."""
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
