"""The pipeline keeps order, loses nothing that was finished, raises once, and leaves no thread alive."""

import random
import signal
import threading
import time

import pytest

from fer_tf.inference.pipeline import Stage, StageError, in_order, interrupts_held, run

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def each(name, function):
    """A stage that maps one item to one."""
    return Stage(name, lambda items: map(function, items))


def drain(items, got):
    for item in items:
        got.append(item)


def failing(at, error):
    def function(item):
        if item == at:
            raise error
        return item

    return function


def in_batches(name, size, function=lambda batch: batch):
    """A stage that gathers `size` items, works on them at once and gives them back one by one."""

    def apply(items):
        held = []
        for item in items:
            held.append(item)
            if len(held) == size:
                yield from function(held)
                held = []
        yield from function(held)

    return Stage(name, apply)


def test_keeps_order_however_long_a_stage_takes(threaded):
    delays = random.Random(0)
    slow = each("slow", lambda item: time.sleep(delays.choice([0, 0, 0, 0.001])) or item)
    stages = [each("double", lambda item: 2 * item), slow, in_batches("batch", 7), each("text", str)]
    assert list(run(range(500), stages, threaded=threaded)) == [str(2 * item) for item in range(500)]


@pytest.mark.parametrize("source", [[], iter(()), range(1)], ids=["none", "spent", "one"])
def test_runs_on_few_items(source, threaded):
    expected = list(source)
    assert list(run(source, [in_batches("batch", 4)], threaded=threaded)) == expected


def test_a_failing_source_is_named_after_all_that_it_gave(threaded):
    def source():
        yield from range(20)
        raise OSError("the file ends here")

    got = []
    with pytest.raises(StageError, match="decode: the file ends here") as caught:
        drain(run(source(), [in_batches("batch", 8)], threaded=threaded, source_name="decode"), got)
    assert got == list(range(20))
    assert caught.value.stage == "decode" and isinstance(caught.value.__cause__, OSError)


def test_an_engine_that_fails_in_its_fifth_batch_loses_only_that(threaded):
    def classify(batch):
        if 16 in batch:
            raise ValueError("no")
        return batch

    got, closed = [], []

    def sink(items):
        try:
            yield from items
        finally:
            closed.append(True)

    stages = [in_batches("infer", 4, classify), Stage("encode", sink)]
    with pytest.raises(StageError, match="infer: no"):
        drain(run(range(10_000), stages, threaded=threaded), got)
    assert got == list(range(16)) and closed == [True]


def test_the_first_of_two_failures_is_raised(threaded):
    def sink(items):
        yield from items
        raise OSError("second")

    stages = [each("infer", failing(3, ValueError("first"))), Stage("encode", sink)]
    with pytest.raises(StageError, match="infer: first"):
        drain(run(range(10), stages, threaded=threaded), [])


def test_leaving_early_ends_every_stage(threaded):
    closed = []

    def source():
        try:
            yield from range(1_000_000)
        finally:
            closed.append("source")

    def stage(items):
        try:
            yield from items
        finally:
            closed.append("stage")

    items = run(source(), [Stage("stage", stage), each("last", str)], threaded=threaded)
    assert next(items) == "0"
    items.close()
    assert sorted(closed) == ["source", "stage"]


def test_a_stage_may_end_the_stream(threaded):
    def first_three(items):
        for _ in range(3):
            yield next(items)

    assert list(run(iter(int, 1), [Stage("head", first_three)], threaded=threaded)) == [0, 0, 0]


def test_nothing_runs_ahead_of_a_slow_sink():
    given = []

    def source():
        for item in range(100):
            given.append(item)
            yield item

    items = run(source(), [each("a", abs), each("b", abs)], depth=2)
    for taken in range(1, 101):
        assert next(items) == taken - 1
        assert len(given) <= taken + 3 * (2 + 1)  # per link: two wait, one is in hand
    items.close()


def test_times_each_stage_without_its_neighbours(threaded):
    times = {}
    stages = [each("quick", abs), each("slow", lambda item: time.sleep(0.01) or item)]
    for _ in run(range(20), stages, threaded=threaded, times=times):
        time.sleep(0.002)
    assert {name: spent.items for name, spent in times.items()} == {"source": 20, "quick": 20, "slow": 20}
    assert times["slow"].busy_s >= 20 * 0.01
    assert times["quick"].busy_s < times["slow"].busy_s / 2


def interrupting(items):
    """A stage that interrupts the program as it ends, and then takes its time."""
    try:
        yield from items
    finally:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.3)


def test_an_interrupt_while_the_stages_end_waits_for_them():
    items = run(range(100), [Stage("interrupting", interrupting), each("last", abs)])
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


def test_a_hung_stage_is_named():
    wake = threading.Event()
    stages = [each("quick", abs), each("stuck", lambda item: wake.wait(30)), each("last", bool)]
    with pytest.raises(StageError, match="stuck: gave nothing"):
        list(run(range(5), stages, patience_s=0.5))
    wake.set()
    for thread in threading.enumerate():
        if thread.name.startswith("stage "):
            thread.join(10)


@pytest.mark.parametrize(
    ("stages", "depth", "words"), [([each("source", abs)], 4, "different names"), ([], 0, "depth")]
)
def test_refuses_what_cannot_work(stages, depth, words):
    with pytest.raises(ValueError, match=words):
        list(run([1], stages, depth=depth))


def test_helpers_work_at_once_and_keep_the_order(threaded):
    together, most, lock, met = [0], [0], threading.Lock(), threading.Barrier(3)

    def work(item):
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        if item < 3:
            met.wait(30)  # all three are inside at the same time, or this fails
        time.sleep(random.Random(item).choice([0, 0, 0.002]))
        with lock:
            together[0] -= 1
        return item, threading.current_thread()

    stage = Stage("work", lambda items: in_order([work] * 3, items))
    times = {}
    found = list(run(range(200), [stage, each("last", tuple)], threaded=threaded, times=times))
    assert [item for item, _ in found] == list(range(200))
    assert most[0] <= 3 and len({thread for _, thread in found}) > 1 and times["work"].cpu_s > 0


def test_a_helper_that_fails_loses_only_what_comes_after(threaded):
    got = []
    stage = Stage("work", lambda items: in_order([failing(20, ValueError("no"))] * 3, items))
    with pytest.raises(StageError, match="work: no"):
        drain(run(range(100), [stage], threaded=threaded), got)
    assert got == list(range(20))


def test_what_is_done_is_not_held_back_for_what_may_come():
    """Helpers give a slow source's items one by one; a batch is given as soon as nothing more is there."""
    arrived, seen = threading.Semaphore(0), []

    def source():
        for item in range(5):
            assert arrived.acquire(timeout=30)
            yield item

    def patient(items):
        held = []
        for item in items:
            held.append(item)
            if not items.ready():
                yield held
                held = []

    stages = [Stage("work", lambda items: in_order([abs] * 2, items)), Stage("gather", patient), each("last", list)]
    results = run(source(), stages)
    for item in range(5):
        arrived.release()
        seen += next(results)
        assert seen == list(range(item + 1))
    assert list(results) == []


def test_ready_waits_for_the_next_item_and_no_longer(threaded):
    open_ = threading.Event()

    def source():
        yield 1
        assert open_.wait(30)
        yield 2

    told = []

    def ask(items):
        for item in items:
            told.append(items.ready(0.01))
            open_.set()
            told.append(items.ready(30))
            yield item

    if not threaded:
        open_.set()
    assert list(run(source(), [Stage("ask", ask), each("last", abs)], threaded=threaded)) == [1, 2]
    assert told == [not threaded, True, True, True]
