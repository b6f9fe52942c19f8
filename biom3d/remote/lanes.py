"""Threads that share out transfers, each with a connection of its own, or some of them with the same."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Lanes:
    """A number of lanes; `each` and `together` use them all, and the first error ends the work.

    `connections`: how many they share; without it each has its own.
    """

    def __init__(self, count: int, connections: int | None = None) -> None:
        self.count = count
        self.connections = connections or count

    def each(self, items: Sequence[T], work: Callable[[T, int], None]) -> None:
        """Do `work(item, lane)` for all items, in order, a lane at a time each."""
        left = iter(items)
        lock = threading.Lock()

        def run(lane: int, is_over: threading.Event) -> None:
            while not is_over.is_set():
                with lock:
                    item = next(left, None)
                if item is None:
                    return
                work(item, lane)

        self.together(run)

    def together(self, work: Callable[[int, threading.Event], None]) -> None:
        """Do `work(lane, is_over)` on all lanes at once; `is_over` is set when one of them has failed."""
        is_over = threading.Event()
        errors: list[BaseException] = []

        def run(lane: int) -> None:
            try:
                work(lane % self.connections, is_over)
            except BaseException as error:  # passed on below
                errors.append(error)
                is_over.set()

        threads = [threading.Thread(target=run, args=(lane,), daemon=True) for lane in range(1, self.count)]
        for thread in threads:
            thread.start()
        run(0)
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
