"""What callers ask for one by one is done together, in line, and nothing that was accepted is lost."""

import threading
import time
from concurrent.futures import wait

import pytest

from fer_tf.inference.microbatch import MicroBatches, Overloaded

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def test_every_item_gets_its_own_result():
    sizes = []

    def double(items):
        sizes.append(len(items))
        return [ZeroDivisionError(item) if item == 13 else 2 * item for item in items]

    batches = MicroBatches([double] * 3, most=5, wait_s=0.001, line=1000)
    futures = [batches.submit(k) for k in range(500)]
    assert len(wait(futures, timeout=30).done) == 500
    batches.close()
    with pytest.raises(ZeroDivisionError, match="13"):
        futures[13].result()
    assert [future.result() for k, future in enumerate(futures) if k != 13] == [2 * k for k in range(500) if k != 13]
    assert max(sizes) == 5 and (batches.calls, batches.items) == (len(sizes), 500)


def test_the_first_waits_for_others_until_the_call_is_full():
    seen = []
    batches = MicroBatches([lambda items: seen.append(len(items)) or items], most=4, wait_s=30.0, line=10)
    futures = [batches.submit(k) for k in range(4)]
    assert len(wait(futures, timeout=20).done) == 4 and seen == [4]
    batches.submit(9)
    batches.close()  # does not wait for others
    assert seen == [4, 1]


def test_a_full_line_refuses_and_closing_finishes_what_was_accepted():
    begun, go = threading.Event(), threading.Event()

    def slow(items):
        begun.set()
        go.wait(20)
        return items

    batches = MicroBatches([slow], most=1, wait_s=0.0, line=2)
    first = batches.submit("a")
    assert begun.wait(20)
    others = [batches.submit("b"), batches.submit("c")]
    assert len(batches) == 2
    with pytest.raises(Overloaded, match="2 requests are waiting"):
        batches.submit("d")
    assert others[0].cancel()
    closing = threading.Thread(target=batches.close)
    closing.start()
    while not batches._closed:
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="has been closed"):
        batches.submit("e")
    go.set()
    closing.join(20)
    assert first.result(0) == "a" and others[1].result(0) == "c" and batches.items == 2


def test_a_call_that_fails_fails_its_items_alone():
    def broken(items):
        if "bad" in items:
            raise OSError("no")
        return items

    batches = MicroBatches([broken], most=1, wait_s=0.0, line=10)
    bad, good = batches.submit("bad"), batches.submit("good")
    assert good.result(20) == "good"
    with pytest.raises(OSError, match="no"):
        bad.result(20)
    batches.close()


@pytest.mark.parametrize("choice", [{"most": 0}, {"line": 0}, {"wait_s": -1.0}, {"wait_s": float("nan")}, {"work": []}])
def test_refuses_what_cannot_work(choice):
    with pytest.raises(ValueError, match=next(iter(choice))):
        MicroBatches(**{"work": [list], "most": 1, "wait_s": 0.0, "line": 1} | choice)
