"""`MicroBatches`: what many callers ask for, one by one, is done together by a few threads."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

CLOSE_S = 30.0
"""Seconds that `close` waits for work that was accepted."""


class Overloaded(RuntimeError):
    """The line is full: ask again later."""


class MicroBatches:
    """A line of items, worked off by threads that take several at a time.

    work    a function per thread: some items -> as many results; one that is an exception is raised for its item alone
    most    items in a call
    wait_s  how long the first item of a call waits for others
    line    items that may wait; further ones are refused

    An item whose future was cancelled before its turn is left out. `calls` and `items` count what was worked on.
    """

    def __init__(self, work: Sequence[Callable[[list], Sequence]], *, most: int, wait_s: float, line: int):
        for name, given in (("work", len(work)), ("most", most), ("line", line)):
            if given < 1:
                raise ValueError(f"{name} must be at least 1, got {given}")
        if not wait_s >= 0:
            raise ValueError(f"wait_s must be 0 or more seconds, got {wait_s}")
        self.most, self.wait_s, self.line = most, wait_s, line
        self.calls = self.items = 0
        self._waiting: deque[tuple[object, Future]] = deque()
        self._changed, self._closed = threading.Condition(), False
        self._threads = [
            threading.Thread(target=self._serve, args=(one,), name=f"batch worker {k}", daemon=True)
            for k, one in enumerate(work)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._waiting)

    def submit(self, item) -> Future:
        """Put an item in line; raises `Overloaded` if it is full, RuntimeError once closed."""
        future: Future = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("this service has been closed")
            if len(self._waiting) >= self.line:
                raise Overloaded(f"{self.line} requests are waiting already")
            self._waiting.append((item, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _serve(self, work: Callable[[list], Sequence]) -> None:
        while (taken := self._take()) is not None:
            taken = [(item, future) for item, future in taken if future.set_running_or_notify_cancel()]
            if not taken:
                continue
            with self._changed:
                self.calls, self.items = self.calls + 1, self.items + len(taken)
            try:
                results = work([item for item, _ in taken])
            except Exception as error:
                results = [error] * len(taken)
            for (_, future), result in zip(taken, results, strict=True):
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _take(self) -> list[tuple[object, Future]] | None:
        """Return the next items, none if another thread was quicker; None once closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            until = time.monotonic() + self.wait_s
            while 0 < len(self._waiting) < self.most and not self._closed:
                if (left := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            return [self._waiting.popleft() for _ in range(min(self.most, len(self._waiting)))]
