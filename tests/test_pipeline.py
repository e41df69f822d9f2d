"""The pipeline keeps order, loses nothing that was finished, raises once, and leaves no thread alive."""

import math
import random
import signal
import threading
import time
from functools import partial

import pytest

from fer_tf.inference.pipeline import Stage, StageError, _quota, interrupts_held, run

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def each(name, function, *, at_once=1, in_order=False):
    """A stage that maps one item to one."""
    return Stage(name, [partial(map, function)] * at_once, in_order)


def drain(items, got):
    for item in items:
        got.append(item)


def failing(at, error):
    def function(item):
        if item == at:
            raise error
        return item

    return function


@pytest.fixture(params=[1, 7], ids=["one by one", "by seven"])
def chunk(request):
    return request.param


def test_keeps_order_however_long_a_stage_takes(workers, chunk):
    seen = []

    def slow(item):
        time.sleep(random.Random(item).choice([0, 0, 0, 0.001]))
        return item

    stages = [
        each("double", lambda item: 2 * item),
        each("slow", slow, at_once=3),
        each("state", lambda item: seen.append(item) or item, in_order=True),
        each("slow again", slow, at_once=2),
        each("text", str),
    ]
    expected = [2 * item for item in range(500)]
    assert list(run(range(500), stages, workers=workers, chunk=chunk)) == list(map(str, expected))
    assert seen == expected


@pytest.mark.parametrize("source", [[], iter(()), range(1)], ids=["none", "spent", "one"])
def test_runs_on_few_items(source, workers):
    expected = list(source)
    assert list(run(source, [each("same", lambda item: item)], workers=workers, chunk=4)) == expected


def test_a_failing_source_is_named_after_all_that_it_gave(workers, chunk):
    def source():
        yield from range(20)
        raise OSError("the file ends here")

    got = []
    with pytest.raises(StageError, match="decode: the file ends here") as caught:
        drain(run(source(), [each("a", abs)], workers=workers, chunk=chunk, source_name="decode"), got)
    assert got == list(range(20))
    assert caught.value.stage == "decode" and isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("in_order", [False, True], ids=["several", "in order"])
def test_a_stage_that_fails_loses_only_what_comes_after(in_order, workers, chunk):
    fails = each("infer", failing(20, ValueError("no")), at_once=1 if in_order else 3, in_order=in_order)
    got, seen = [], []
    stages = [each("before", abs), fails, each("after", lambda item: seen.append(item) or item, in_order=True)]
    with pytest.raises(StageError, match="infer: no"):
        drain(run(range(10_000), stages, workers=workers, chunk=chunk), got)
    assert got == seen == list(range(20))


def test_the_failure_that_comes_first_in_the_stream_is_raised(workers):
    """The later item fails first by the clock."""
    failed = threading.Event()

    def early(item):
        if item == 3:
            assert not workers or failed.wait(30)
            raise ValueError("third")
        if item == 4:
            failed.set()
            raise ValueError("fourth")
        return item

    got = []
    with pytest.raises(StageError, match="infer: third"):
        drain(run(range(10), [each("infer", early, at_once=3)], workers=workers), got)
    assert got == [0, 1, 2]


def test_of_two_failures_in_a_chunk_the_one_at_the_earlier_item_is_told(workers):
    """The source fails before the stage does, by the clock."""

    def source():
        yield from range(20)
        raise OSError("ends")

    got = []
    with pytest.raises(StageError, match="infer: no"):
        drain(run(source(), [each("infer", failing(16, ValueError("no")))], workers=workers, chunk=7), got)
    assert got == list(range(16))


def test_a_stage_that_gives_too_few_items_has_failed(workers):
    """A StopIteration that leaves a function ends its loop, silently."""
    got = []
    with pytest.raises(StageError, match="odd: gave 3 of 5 items"):
        drain(run(range(20), [each("odd", failing(8, StopIteration()))], workers=workers, chunk=5), got)
    assert got == list(range(8))


def test_closing_waits_for_the_item_in_hand_and_not_for_the_chunk():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.05 if item > 3 else 0)
        return item

    items = run(range(400), [each("work", work)], workers=1, chunk=4)
    next(items)
    while len(begun) < 6:
        time.sleep(0.001)
    items.close()
    assert len(begun) <= 7


def test_an_interrupt_passes_through_without_workers():
    for stages, source in (
        ([each("a", failing(2, KeyboardInterrupt()))], range(5)),
        ([], map(failing(2, KeyboardInterrupt()), range(5))),
    ):
        with pytest.raises(KeyboardInterrupt):
            list(run(source, stages, workers=0))


def test_an_interrupt_in_a_worker_is_a_failure_and_no_hang():
    with pytest.raises(StageError, match="odd: KeyboardInterrupt"):
        list(run(range(9), [each("odd", failing(3, KeyboardInterrupt()))], workers=2))


def test_what_is_no_exception_stops_it_too(workers):
    with pytest.raises(StageError, match="odd: SystemExit"):
        list(run(range(9), [each("odd", failing(3, SystemExit()))], workers=workers))


def test_leaving_early_ends_the_source_and_every_thread(workers, chunk):
    closed = []

    def source():
        try:
            yield from range(1_000_000)
        finally:
            closed.append("source")

    items = run(source(), [each("a", abs, in_order=True), each("b", str)], workers=workers, chunk=chunk)
    assert next(items) == "0"
    items.close()
    assert closed == ["source"]


def test_nothing_runs_ahead_of_a_slow_caller():
    given = []

    def source():
        for item in range(100):
            given.append(item)
            yield item

    items = run(source(), [each("a", abs, in_order=True), each("b", abs, at_once=2)], workers=2, chunk=3)
    for taken in range(1, 101):
        assert next(items) == taken - 1
        assert len(given) <= taken + 3 * (2 + 2)  # a chunk per worker, one that is finished, one in hand
    items.close()


def test_stages_with_several_functions_work_at_once():
    together, most, lock, met = [0], [0], threading.Lock(), threading.Barrier(3)

    def work(item):
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        if item < 3:
            met.wait(30)  # all three are inside at the same time, or this fails
        with lock:
            together[0] -= 1
        return item

    assert list(run(range(200), [each("work", work, at_once=3)], workers=5)) == list(range(200))
    assert most[0] == 3


def test_times_each_stage_without_its_neighbours(workers):
    times = {}
    stages = [each("quick", abs), each("slow", lambda item: time.sleep(0.01) or item, in_order=True)]
    for _ in run(range(20), stages, workers=workers, chunk=2, times=times):
        time.sleep(0.002)
    assert {name: spent.items for name, spent in times.items()} == {"source": 20, "quick": 20, "slow": 20}
    assert times["slow"].busy_s >= 20 * 0.01 and len(times["slow"].each_s) == 20
    assert times["quick"].busy_s < times["slow"].busy_s / 2
    assert (times["slow"].waited_s > 0.01) == bool(workers)


def test_a_finished_item_does_not_wait_for_the_next_one():
    arrived = threading.Semaphore(0)

    def source():
        for item in range(5):
            assert arrived.acquire(timeout=30)
            yield item

    results = run(source(), [each("a", abs), each("b", abs, in_order=True)], workers=3)
    for item in range(5):
        arrived.release()
        assert next(results) == item
    assert list(results) == []


def test_ticks_while_nothing_comes():
    go_on, ticks = threading.Event(), 0

    def source():
        yield 1
        assert go_on.wait(30)
        yield 2

    got = []
    for item in run(source(), [each("same", abs)], workers=2, tick_s=0.01):
        got.append(item)
        ticks += item is None
        if ticks == 3:
            go_on.set()
    assert ticks >= 3 and [item for item in got if item is not None] == [1, 2] and got[0] == 1


def test_an_interrupt_while_the_threads_end_waits_for_them():
    def source():
        try:
            yield from range(100)
        finally:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.3)

    items = run(source(), [each("last", abs)], workers=2)
    next(items)
    with pytest.raises(KeyboardInterrupt):
        items.close()


def test_interrupts_are_held_until_a_block_ends_unless_something_hangs(monkeypatch):
    with pytest.raises(KeyboardInterrupt), interrupts_held() as caught:
        signal.raise_signal(signal.SIGINT)
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
        assert len(caught) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr("fer_tf.inference.pipeline.GRACE_S", 0.01)
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("what hangs cannot be left")


@pytest.mark.parametrize("where", ["stuck", "source"])
@pytest.mark.parametrize("tick_s", [None, 0.1])
def test_a_hung_stage_is_named(where, tick_s):
    wake = threading.Event()

    def hang(item):
        return wake.wait(30) and item

    source = map(hang, range(5)) if where == "source" else range(5)
    stages = [each("quick", abs)]
    stages += [each("stuck", hang if where == "stuck" else abs, in_order=True), each("last", bool)]
    with pytest.raises(StageError, match=f"{where}: gave nothing for 0.5 seconds"):
        list(run(source, stages, workers=3, patience_s=0.5, tick_s=tick_s))
    wake.set()
    for thread in threading.enumerate():
        if thread.name == "stage worker":
            thread.join(10)


@pytest.mark.parametrize(
    ("stages", "choices", "words"),
    [
        ([each("source", abs)], {}, "different names"),
        ([Stage("idle", [])], {}, "needs a function"),
        ([], {"chunk": 0}, "chunk"),
        ([], {"workers": -1}, "workers"),
    ],
)
def test_refuses_what_cannot_work(stages, choices, words):
    with pytest.raises(ValueError, match=words):
        list(run([1], stages, **choices))


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({}, math.inf),
        ({"": "max 100000"}, math.inf),
        ({"": "150000 100000"}, 1.5),
        ({"pod/box": "max 100000", "pod": "200000 100000"}, 2),
        ({"pod/box": "50000 100000", "pod": "200000 100000"}, 0.5),
        ({"": "nonsense"}, math.inf),
    ],
    ids=["no group", "no limit", "a container", "a limit above", "the least", "unreadable"],
)
def test_a_container_s_quota_counts(limits, cores, tmp_path):
    own = tmp_path / "own"
    own.write_text("1:name=x:/elsewhere\n0::/pod/box\n")
    for name, text in limits.items():
        (tmp_path / "group" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "group" / name / "cpu.max").write_text(f"{text}\n")
    assert _quota(tmp_path / "group", own) == cores
    assert _quota(tmp_path / "none", tmp_path / "none") == math.inf
