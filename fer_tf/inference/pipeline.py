"""`run`: stages over a stream of items, a thread each with bounded queues between them, or one after the other.

A stage is a generator transform: it takes an iterator of what came before and yields what comes after, in order. It may
hold items back (to fill a batch) as long as it yields them before it ends.

Whatever the reason to stop, it goes the same way: stages that nobody needs any more give up at their next item, and an
end mark runs down the queues. Each thread takes from its queue until the mark, so nobody waits for a neighbour that is
gone, and what was finished before arrives.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

GRACE_S = 10.0
"""An interrupt that comes so long after the first is not held back any more: something hangs."""
_END = object()


@dataclass(frozen=True)
class Stage:
    name: str
    apply: Callable[[Iterator], Iterator]


@dataclass
class StageTime:
    """items: how many the stage gave; busy_s: seconds in the stage itself, without waiting for either neighbour."""

    items: int = 0
    busy_s: float = 0.0


class StageError(RuntimeError):
    """A stage failed; its name is `stage`, what it raised is `__cause__`."""

    def __init__(self, stage: str, reason: object):
        super().__init__(f"{stage}: {reason}")
        self.stage = stage


def run(
    source: Iterable,
    stages: Sequence[Stage],
    *,
    threaded: bool = True,
    depth: int = 4,
    source_name: str = "source",
    times: dict[str, StageTime] | None = None,
    patience_s: float = 120.0,
) -> Iterator[Any]:
    """Yield what the last stage gives, in order.

    threaded    a thread for the source and each stage; the last stage, and with False everything, runs in the caller's
    depth       items that may wait between two stages: how far a stage may run ahead of the next
    times       is filled with a `StageTime` per name, the source's included
    patience_s  how long to wait for one item before a stage counts as hung

    When the source or a stage fails, what was finished before is yielded, then `StageError` is raised, once. Close the
    iterator (or leave its loop) to stop early: every thread has ended when that returns.
    """
    stages = [Stage(source_name, lambda _: iter(source)), *stages]
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ValueError(f"stages need different names, got {names}")
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    times = {} if times is None else times
    times.update({name: StageTime() for name in names})
    failures: list[StageError] = []
    links = [_Link(stage, times[stage.name], failures) for stage in stages]
    yield from _threaded(links, depth, patience_s) if threaded else _chained(links)
    if failures:
        raise failures[0]


class _Link:
    """One stage at work: measures it, and turns its failure into an early end and a line in `failures`."""

    def __init__(self, stage: Stage, spent: StageTime, failures: list[StageError]):
        self.stage, self.spent, self.failures = stage, spent, failures
        self.waited_s, self.waiting = 0.0, False  # for the stage before
        self.needed = True

    def items(self, before: Iterator) -> Iterator:
        items = iter(())
        try:
            items = self.stage.apply(self._clocked(before))
            while True:
                started, waited = time.perf_counter(), self.waited_s
                item = next(items, _END)
                self.spent.busy_s += time.perf_counter() - started - (self.waited_s - waited)
                if item is _END:
                    return
                self.spent.items += 1
                yield item
        except StageError as error:  # the stage before hangs
            self.failures.append(error)
        except Exception as error:
            self.failures.append(StageError(self.stage.name, error))
            self.failures[-1].__cause__ = error
        finally:
            _close(items)

    def _clocked(self, before: Iterator) -> Iterator:
        while True:
            started, self.waiting = time.perf_counter(), True
            item = next(before, _END)
            self.waiting = False
            self.waited_s += time.perf_counter() - started
            if item is _END:
                return
            yield item


def _chained(links: list[_Link]) -> Iterator:
    chain = [iter(())]
    for link in links:
        chain.append(link.items(chain[-1]))
    try:
        yield from chain[-1]
    finally:
        for items in reversed(chain):
            _close(items)


def _threaded(links: list[_Link], depth: int, patience_s: float) -> Iterator:
    *workers, last = links
    queues = [Queue(depth) for _ in workers]
    hung = False

    def work(number: int) -> None:
        inbox, outbox = inboxes[number], queues[number]
        items = workers[number].items(inbox)
        try:
            for item in items:
                outbox.put(item)
                if not workers[number].needed:
                    break
        finally:
            items.close()
            _dismiss(workers[:number])
            outbox.put(_END)
            for _ in inbox:
                pass

    def take() -> Any:
        nonlocal hung
        try:
            return queues[-1].get(timeout=patience_s)
        except Empty:
            hung, queues[-1].maxsize = True, 0  # unbounded: whoever wakes later finds room to end
            busy = next(link.stage.name for link in reversed(workers) if not link.waiting)
            raise StageError(busy, f"gave nothing for {patience_s:g} seconds") from None

    # Such an iterator is exhausted for good by the first end mark.
    inboxes = [iter(()), *(iter(queue.get, _END) for queue in queues[:-1])]
    inbox = iter(take, _END) if queues else iter(())
    results = last.items(inbox)
    threads = [
        threading.Thread(target=work, args=(number,), name=f"stage {link.stage.name}", daemon=True)
        for number, link in enumerate(workers)
    ]
    try:
        with interrupts_held():
            for thread in threads:
                thread.start()
        yield from results
    finally:
        with interrupts_held():  # a thread left alive in a library's code would abort the program as it exits
            results.close()
            _dismiss(workers)
            if not hung:  # a hung thread cannot be ended; as a daemon it does not keep the program alive
                for _ in inbox:
                    pass
                for thread in threads:
                    thread.join()


@contextmanager
def interrupts_held() -> Iterator[list[float]]:
    """Yield a list that fills with the times of interrupts; where any came, raise KeyboardInterrupt after the block.

    It holds Ctrl-C and every other signal that the program treats like it, in the main thread.
    """
    caught: list[float] = []

    def note(number, frame):
        caught.append(time.monotonic())
        if caught[-1] - caught[0] > GRACE_S:
            raise KeyboardInterrupt

    held = []
    if threading.current_thread() is threading.main_thread():  # no other is interrupted
        held = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.default_int_handler]
    try:
        for number in held:
            signal.signal(number, note)
        yield caught
    finally:
        for number in held:
            signal.signal(number, signal.default_int_handler)
    if caught:
        raise KeyboardInterrupt


def _dismiss(links: list[_Link]) -> None:
    for link in links:
        link.needed = False


def _close(items: Iterator) -> None:
    """End a generator now, so that its `finally` runs in the thread that ran it."""
    if hasattr(items, "close"):
        items.close()
