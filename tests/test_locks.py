"""A lock that a signal handler's exception finds in the middle of a `with` is free again."""

import pairing
import pytest
from masters import run

pytestmark = pytest.mark.ours

INTERRUPTED = """
import signal, sys, time
from execnet_c import worker
from execnet_c.models import native

class Interrupt(Exception):
    pass

def handler(*args):
    raise Interrupt

def use(lock):
    with lock:
        pass

signal.signal(signal.SIGALRM, handler)
for make in (native.RLock, native.allocate_lock, worker.allocate_lock):
    lock, interrupts = make(), 0
    while interrupts < 2000:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.00003)
            while True:
                use(lock)
                use(lock)
        except Interrupt:
            interrupts += 1
        assert lock.acquire(False), "locked"
        lock.release()
        assert not hasattr(lock, "_is_owned") or not lock._is_owned(), "owned"
print("good")
"""


def test_an_interrupt_loses_no_lock():
    assert run(pairing.HEAD + INTERRUPTED) == ["good"]
