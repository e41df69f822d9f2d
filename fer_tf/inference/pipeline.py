"""`run`: stages over a stream of items, a thread each with bounded queues between them, or one after the other.

A stage is a generator transform: it takes an iterator of what came before and yields what comes after, in order. It may
hold items back (to fill a batch) as long as it yields them before it ends.

Whatever the reason to stop, it goes the same way: stages that nobody needs any more give up at their next item, and an
end mark runs down the queues. Each thread takes from its queue until the mark, so nobody waits for a neighbour that is
gone, and what was finished before arrives.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, Queue, SimpleQueue
from typing import Any

PATIENCE_S = 120.0
GRACE_S = 10.0
"""An interrupt that comes so long after the first is not held back any more: something hangs."""
KEPT = 100_000
"""Items, the last ones, whose times are kept one by one."""
AHEAD = 8
"""Items per helper that may be done before the one that is given next."""
POLL_S = 0.002
"""How long to wait for another item before looking again whether the first one is done."""
_END = object()


@dataclass(frozen=True)
class Stage:
    """depth: items that may wait in front of it, where they are larger than others; None is that of all stages."""

    name: str
    apply: Callable[["Items"], Iterator]
    depth: int | None = None


@dataclass
class StageTime:
    """What a stage did.

    items   how many it gave
    busy_s  seconds in the stage itself, without waiting for either neighbour
    cpu_s   seconds of a core that its threads took; not those of threads that a library keeps to itself
    taken   how many it took, and `queued` how many lay in front of it then, summed over all
    each_s  busy seconds of each item, of the last KEPT
    """

    items: int = 0
    busy_s: float = 0.0
    cpu_s: float = 0.0
    taken: int = 0
    queued: int = 0
    each_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT), repr=False)


class StageError(RuntimeError):
    """A stage failed; its name is `stage`, what it raised is `__cause__`."""

    def __init__(self, stage: str, reason: object):
        super().__init__(f"{stage}: {str(reason) or type(reason).__name__}")
        self.stage = stage


def run(
    source: Iterable,
    stages: Sequence[Stage],
    *,
    threaded: bool = True,
    depth: int = 4,
    source_name: str = "source",
    times: dict[str, StageTime] | None = None,
    patience_s: float = PATIENCE_S,
    stop: Callable[[], object] = lambda: None,
) -> Iterator[Any]:
    """Yield what the last stage gives, in order.

    threaded    a thread for the source and each stage; the last stage, and with False everything, runs in the caller's
    depth       items that may wait between two stages: how far a stage may run ahead of the next
    times       is filled with a `StageTime` per name, the source's included
    patience_s  how long to wait for one item before a stage counts as hung
    stop        ends a source that may be silent for long, from another thread

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
    yield from _threaded(links, depth, patience_s, stop) if threaded else _chained(links)
    if failures:
        raise failures[0]


class Items:
    """What comes to a stage, in order: an iterator that also tells whether the next item is there already.

    spent  the stage's own `StageTime`, for what its helpers take
    """

    def __init__(self, take: Callable[[float | None], Any], spent: StageTime, *, queue: Queue | None = None):
        self._take, self._queue, self.spent = take, queue, spent
        self._held, self._over = [], False
        self.waited_s = self.waited_cpu_s = 0.0  # for the stage before
        self.waiting = False

    def __iter__(self) -> "Items":
        return self

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        waiting = len(self._held) + (self._queue.qsize() if self._queue else 0)
        item = self._held.pop() if self._held else self._clocked(None)
        if item is _END:
            self._over = True
            raise StopIteration
        self.spent.taken += 1
        self.spent.queued += waiting
        return item

    def ready(self, timeout_s: float = 0.0) -> bool:
        """Tell whether the next item, or the end, is there within so many seconds.

        Where stages run one after the other it always is: to take it is to make it.
        """
        if self._queue and not self._over and not self._held:
            try:
                self._held.append(self._clocked(timeout_s))
            except Empty:
                return False
        return True

    def _clocked(self, timeout_s: float | None) -> Any:
        started, cpu, self.waiting = time.perf_counter(), time.thread_time(), True
        try:
            return self._take(timeout_s)
        finally:
            self.waiting = False
            self.waited_s += time.perf_counter() - started
            self.waited_cpu_s += time.thread_time() - cpu


class _Link:
    """One stage at work: measures it, and turns its failure into an early end and a line in `failures`."""

    def __init__(self, stage: Stage, spent: StageTime, failures: list[StageError]):
        self.stage, self.spent, self.failures = stage, spent, failures
        self.needed = True

    def items(self, before: Items) -> Iterator:
        items = iter(())
        try:
            items = self.stage.apply(before)
            while True:
                started, cpu = time.perf_counter() - before.waited_s, time.thread_time() - before.waited_cpu_s
                item = next(items, _END)
                busy = time.perf_counter() - before.waited_s - started
                self.spent.busy_s += busy
                self.spent.cpu_s += time.thread_time() - before.waited_cpu_s - cpu
                if item is _END:
                    return
                self.spent.items += 1
                self.spent.each_s.append(busy)
                yield item
        except StageError as error:  # the stage before hangs
            self.failures.append(error)
        except Exception as error:
            self.failures.append(StageError(self.stage.name, error))
            self.failures[-1].__cause__ = error
        finally:
            _close(items)


@contextmanager
def helpers(functions: Sequence[Callable]) -> Iterator[Callable[[Any], Future]]:
    """Yield what has function(item) done by a thread per function, whichever is free, and returns its future.

    After the block no thread is left, but those that hang: they are daemons, and do not keep the program alive.
    """
    jobs: SimpleQueue = SimpleQueue()
    over = threading.Event()

    def work(function: Callable) -> None:
        while (job := jobs.get()) is not None:
            future, item = job
            try:
                if not over.is_set():
                    future.set_result(function(item))
            except BaseException as error:
                future.set_exception(error)

    def submit(item: Any) -> Future:
        future: Future = Future()
        jobs.put((future, item))
        return future

    threads = [threading.Thread(target=work, args=(f,), name="stage helper", daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    try:
        yield submit
    finally:
        over.set()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join(GRACE_S)


def in_order(
    functions: Sequence[Callable], items: Items, *, wanted: Callable[[Any], bool] = lambda item: True
) -> Iterator:
    """Yield function(item) for every item, in their order, with a thread for each of the functions.

    All of them do the same work, each with tools of its own. Items that are not wanted pass as they are; `wanted` is
    asked in order. What is done is given at once, whether more items come or not.
    """
    if len(functions) == 1:
        yield from (functions[0](item) if wanted(item) else item for item in items)
        return

    def timed(function: Callable) -> Callable:
        def work(item: Any) -> tuple[Any, float]:
            cpu = time.thread_time()
            return function(item), time.thread_time() - cpu

        return work

    def finished(future: Future) -> Any:
        found, cpu = future.result()
        items.spent.cpu_s += cpu
        return found

    most = len(functions)
    with helpers([timed(function) for function in functions]) as submit:
        flying: deque[Future] = deque()
        for item in items:
            if wanted(item):
                flying.append(submit(item))
            else:
                flying.append(Future())
                flying[-1].set_result((item, 0.0))
            while flying:
                busy = sum(not future.done() for future in flying)
                if flying[0].done() or busy > most or len(flying) > AHEAD * most:
                    yield finished(flying.popleft())
                elif items.ready(POLL_S):
                    break
        yield from map(finished, flying)


def _chained(links: list[_Link]) -> Iterator:
    chain = [iter(())]
    for link in links:
        chain.append(link.items(Items(lambda _, before=chain[-1]: next(before, _END), link.spent)))
    try:
        yield from chain[-1]
    finally:
        for items in reversed(chain):
            _close(items)


def _threaded(links: list[_Link], depth: int, patience_s: float, stop: Callable[[], object]) -> Iterator:
    *workers, last = links
    queues = [Queue(link.stage.depth or depth) for link in links[1:]]
    hung = False

    def work(number: int) -> None:
        items = workers[number].items(inboxes[number])
        try:
            for item in items:
                queues[number].put(item)
                if not workers[number].needed:
                    break
            items.close()
        except BaseException as error:  # also what is no Exception, or comes as a stage is closed: it is not its end
            failed = StageError(workers[number].stage.name, error)
            failed.__cause__ = error
            workers[number].failures.append(failed)
        finally:
            _dismiss(workers[:number])
            queues[number].put(_END)
            for _ in inboxes[number]:
                pass

    def take(timeout_s: float | None) -> Any:
        """For the last stage, whose patience ends."""
        nonlocal hung
        try:
            return queues[-1].get(timeout=patience_s if timeout_s is None else timeout_s)
        except Empty:
            if timeout_s is not None:
                raise
            hung, queues[-1].maxsize = True, 0  # unbounded: whoever wakes later finds room to end
            busy = next(n for n in reversed(range(len(workers))) if not inboxes[n].waiting)
            raise StageError(workers[busy].stage.name, f"gave nothing for {patience_s:g} seconds") from None

    inboxes = [Items(lambda _: _END, links[0].spent)]
    for link, queue in zip(links[1:], queues, strict=True):
        get = take if link is last else lambda timeout_s, queue=queue: queue.get(timeout=timeout_s)
        inboxes.append(Items(get, link.spent, queue=queue))
    results = last.items(inboxes[-1])
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
            stop()
            if not hung:  # a hung thread cannot be ended; as a daemon it does not keep the program alive
                for _ in inboxes[-1]:
                    pass
                for thread in threads:
                    thread.join()


@contextmanager
def interrupts_held(*, tell: Callable[[], object] | None = None) -> Iterator[list[float]]:
    """Yield a list that fills with the times of interrupts; where any came, raise KeyboardInterrupt after the block.

    It holds Ctrl-C and every other signal that the program treats like it, in the main thread. `tell` is called with
    each, to end what the block may be waiting for.
    """
    caught: list[float] = []

    def note(number, frame):
        caught.append(time.monotonic())
        if tell:
            tell()
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


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _dismiss(links: list[_Link]) -> None:
    for link in links:
        link.needed = False


def _close(items: Iterator) -> None:
    """End a generator now, so that its `finally` runs in the thread that ran it."""
    if hasattr(items, "close"):
        items.close()
