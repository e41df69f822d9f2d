"""`run`: a stream of items through stages, in order, by a few threads that each carry some items all the way.

A worker takes the next items from the source, a chunk, and takes them through every stage itself. So an item changes
hands once, not at every stage, which on Python costs as much as the work; and there are as many threads as cores to
keep busy, however many stages there are. A stage that has a state takes the chunks one by one, in order; others are at
work on several chunks at once.

Whatever the reason to stop, it goes the same way: no worker takes another chunk, what lies behind the chunk that failed
is dropped, and what was finished before it arrives.
"""

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0
GRACE_S = 10.0
"""An interrupt that comes so long after the first is not held back any more: something hangs."""
KEPT = 10_000
"""Items, the last ones, whose times are kept one by one."""


@dataclass(frozen=True)
class Stage:
    """What is done to every item.

    functions  a list of items -> as many, one after the other: those before a failure count. Each of several functions
               has tools of its own, and they work at the same time on different chunks
    in_order   it has a state: it gets the chunks in the order of the source
    """

    name: str
    functions: Sequence[Callable[[list], Iterable]]
    in_order: bool = False


@dataclass
class StageTime:
    """What a stage did.

    items     how many it gave
    busy_s    seconds that making them took, a live source's waiting included
    cpu_s     seconds of a core that the workers took in it; not those of threads that a library keeps to itself
    waited_s  seconds that items waited in front of it, summed over all: over the time of the run, how many lay there
    each_s    busy seconds of each item, of the last KEPT
    """

    items: int = 0
    busy_s: float = 0.0
    cpu_s: float = 0.0
    waited_s: float = 0.0
    each_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT), repr=False)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the block as one item, and its time."""
        started, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            busy = time.perf_counter() - started
            self.busy_s, self.cpu_s = self.busy_s + busy, self.cpu_s + time.thread_time() - cpu
        self.items += 1
        self.each_s.append(busy)

    def clocked(self, items: Iterable) -> Iterator:
        """Yield the items, and count the time that making them takes."""
        items, started, cpu = iter(items), time.perf_counter(), time.thread_time()
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                now, spent = time.perf_counter(), time.thread_time()
                self.busy_s, self.cpu_s = self.busy_s + now - started, self.cpu_s + spent - cpu
            self.items += 1
            self.each_s.append(now - started)
            yield item
            started, cpu = time.perf_counter(), time.thread_time()


class StageError(RuntimeError):
    """A stage failed; its name is `stage`, what it raised is `__cause__`."""

    def __init__(self, stage: str, reason: object):
        super().__init__(f"{stage}: {str(reason) or type(reason).__name__}")
        self.stage = stage
        self.__cause__ = reason if isinstance(reason, BaseException) else None


def run(
    source: Iterable,
    stages: Sequence[Stage],
    *,
    workers: int | None = None,
    chunk: int = 1,
    source_name: str = "source",
    times: dict[str, StageTime] | None = None,
    patience_s: float = PATIENCE_S,
    tick_s: float | None = None,
    stop: Callable[[], object] = lambda: None,
) -> Iterator[Any]:
    """Yield what the last stage gives, in order.

    workers     threads; None is one more than there are cores, 0 does everything in the caller's
    chunk       items that a worker takes through the stages together: more of them change hands less often, and are
                later. Beside what the workers carry, one chunk waits for the caller
    times       is filled with a `StageTime` per name, the source's included
    patience_s  how long to wait for a chunk, and at the end for the threads, before a stage counts as hung
    tick_s      yield None after every so many seconds without an item
    stop        ends a source that may be silent for long, from another thread

    The last three are for workers: without them, this thread waits as long as it takes.

    When the source or a stage fails, what was finished before is yielded, then `StageError` is raised, once. Close the
    iterator (or leave its loop) to stop early: every thread has ended when that returns.
    """
    names = [source_name, *(stage.name for stage in stages)]
    if len(set(names)) < len(names):
        raise ValueError(f"stages need different names, got {names}")
    if not all(stage.functions for stage in stages):
        raise ValueError(f"every stage needs a function, got none for one of {names[1:]}")
    workers = cores() + 1 if workers is None else workers
    if workers < 0 or chunk < 1:
        raise ValueError(f"workers must be at least 0 and chunk at least 1, got {workers} and {chunk}")
    times = {} if times is None else times
    times.update({name: StageTime() for name in names})
    crew = _Crew(source, source_name, stages, chunk, times)
    if not workers:
        return crew.alone()
    return crew.together(workers, patience_s, tick_s, stop)


@dataclass(eq=False)
class _Chunk:
    number: int
    items: list = field(default_factory=list)
    last: bool = False
    failure: StageError | None = None


class _Station:
    """A stage at work: who may enter, and who waits for that."""

    def __init__(self, stage: Stage, spent: StageTime, lock: threading.Lock):
        self.stage, self.spent = stage, spent
        self.functions, self.passed, self.changed = list(stage.functions), 0, threading.Condition(lock)

    def is_free(self, chunk: _Chunk) -> bool:
        return bool(self.functions) and not (self.stage.in_order and self.passed != chunk.number)


class _Crew:
    """The workers of one run and what they share; `lock` guards all of it, but the source has `door`."""

    def __init__(self, source: Iterable, name: str, stages: Sequence[Stage], chunk: int, times: dict[str, StageTime]):
        self.source, self.name, self.chunk = source, name, chunk
        self.door, self.lock = threading.Lock(), threading.Lock()
        self.spent, self.items = times[name], None
        self.stations = [_Station(stage, times[stage.name], self.lock) for stage in stages]
        self.taken = self.given = 0
        self.over = self.stopped = False  # nothing more is taken; nothing more is done
        self.failed: int | None = None  # the first chunk that failed: what comes after it is dropped
        self.places: dict[int, str] = {}  # chunk under way -> where it is
        self.finished: deque[_Chunk] = deque()
        self.arrived, self.room = threading.Condition(self.lock), threading.Condition(self.lock)

    def alone(self) -> Iterator:
        """Do everything in this thread."""
        try:
            while chunk := self.take():
                for station in self.stations:
                    self.do(chunk, station)
                del self.places[chunk.number]
                yield from chunk.items
                if chunk.failure:
                    raise chunk.failure
        finally:
            self.close()

    def together(self, workers: int, patience_s: float, tick_s: float | None, stop: Callable) -> Iterator:
        """Have it done by so many threads."""
        threads = [threading.Thread(target=self.work, name="stage worker", daemon=True) for _ in range(workers)]
        hung = False
        try:
            with interrupts_held():
                for thread in threads:
                    thread.start()
            last = False
            while not last:
                waited_s, at_most = 0.0, patience_s if tick_s is None else tick_s
                while (chunk := self.next_finished(min(at_most, patience_s - waited_s))) is None:
                    waited_s += at_most
                    if waited_s >= patience_s:
                        hung = True
                        raise StageError(self.first_place(), f"gave nothing for {patience_s:g} seconds")
                    yield None
                yield from chunk.items
                if chunk.failure:
                    raise chunk.failure
                last = chunk.last
        finally:
            with interrupts_held():  # a thread left alive in a library's code would abort the program as it exits
                self.end()
                stop()
                ends = time.monotonic() + (0.0 if hung else patience_s)
                for thread in threads:
                    thread.join(max(0.0, ends - time.monotonic()))
                if not any(thread.is_alive() for thread in threads):  # one that hangs does not keep the program alive
                    self.close()

    def work(self) -> None:
        while chunk := self.take():
            for station in self.stations:
                self.do(chunk, station)
            self.give(chunk)

    def take(self) -> _Chunk | None:
        """Return the next items, or None where there are no more to take."""
        with self.door:
            with self.lock:
                if self.over:
                    return None
                chunk = _Chunk(self.taken)
                self.taken += 1
                self.places[chunk.number] = self.name
            try:
                if self.items is None:
                    self.items = self.spent.clocked(self.source)
                while len(chunk.items) < self.chunk and not (chunk.last or self.stopped):
                    if (item := next(self.items, self)) is self:
                        chunk.last = True
                    else:
                        chunk.items.append(item)
            except BaseException as error:  # also what is no Exception: it is not the end of the source
                self.fail(chunk, self.name, error)
            with self.lock:
                self.over |= chunk.last
            return chunk

    def do(self, chunk: _Chunk, station: _Station) -> None:
        """Have a stage done to a chunk; where it fails, the chunk goes on with what was done before."""
        began = time.perf_counter()
        with self.lock:
            self.places[chunk.number] = station.stage.name
            while not (self.stopped or station.is_free(chunk)):
                station.changed.wait()
            if self.stopped:
                chunk.items = []
                return
            function = station.functions.pop()
            dropped = self.failed is not None and chunk.number > self.failed
        items, chunk.items = [] if dropped else chunk.items, []
        spent = StageTime()
        spent.waited_s = (time.perf_counter() - began) * len(items)
        try:
            for item in spent.clocked(_done(function, items)):
                chunk.items.append(item)
                if self.stopped:
                    break
            else:
                if len(chunk.items) < len(items):
                    raise RuntimeError(f"gave {len(chunk.items)} of {len(items)} items")
        except BaseException as error:
            self.fail(chunk, station.stage.name, error)
        with self.lock:
            _add(station.spent, spent)
            station.functions.append(function)
            station.passed += 1
            station.changed.notify_all()

    def fail(self, chunk: _Chunk, name: str, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise error  # without workers: somebody wants the program to end
        chunk.failure, chunk.last = StageError(name, error), True  # before that of an earlier stage, as to its items
        with self.lock:
            self.failed = chunk.number if self.failed is None else min(self.failed, chunk.number)
            self.over = True

    def give(self, chunk: _Chunk) -> None:
        """Hand a finished chunk to the caller, when it is its turn and the caller has taken the one before."""
        with self.lock:
            self.places[chunk.number] = "the caller"
            while not self.stopped and (self.given != chunk.number or self.finished):
                self.room.wait()
            self.finished.append(chunk)
            self.given += 1
            del self.places[chunk.number]
            self.arrived.notify_all()
            self.room.notify_all()

    def next_finished(self, timeout_s: float) -> _Chunk | None:
        """Return the next finished chunk, or None if it does not come in time."""
        with self.lock:
            if not self.arrived.wait_for(lambda: self.finished, timeout_s):
                return None
            self.room.notify_all()
            return self.finished.popleft()

    def first_place(self) -> str:
        """Return where the first chunk under way is: what all others wait for."""
        with self.lock:
            return self.places[min(self.places)] if self.places else self.name

    def end(self) -> None:
        """Let every worker leave at its next step."""
        with self.lock:
            self.over = self.stopped = True
            for changed in (self.room, *(station.changed for station in self.stations)):
                changed.notify_all()

    def close(self) -> None:
        """End the source now, if it is a generator."""
        if hasattr(self.source, "close"):
            self.source.close()


def _done(function: Callable[[list], Iterable], items: list) -> Iterator:
    """Yield what a stage makes of some items: whatever it does, it does as it is iterated."""
    if items:
        yield from function(items)


def _add(total: StageTime, part: StageTime) -> None:
    for name in ("items", "busy_s", "cpu_s", "waited_s"):
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.each_s.extend(part.each_s)


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
    """Return how many cores this process may use: those it may run on, or fewer where a container has a quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))))


def _quota(root: Path, own: Path) -> float:
    """Return the cores' worth of time that Linux's control groups (version 2) leave a process; inf without a limit."""
    least = math.inf
    with suppress(OSError, ValueError):  # there may be none, or those of version 1
        lines = own.read_text().splitlines()
        name = next((line[3:] for line in lines if line.startswith("0::")), "")
        group = root / name.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (folder / "cpu.max").is_file():
                quota, period = (folder / "cpu.max").read_text().split()
                least = least if quota == "max" else min(least, int(quota) / int(period))
    return least
