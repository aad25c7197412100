"""What the tests of callbacks share."""

import threading

import pytest

from conftest import TIMEOUT


class Seen(list):
    """A callback that keeps what it got and can be waited for."""

    def __init__(self):
        self.changed = threading.Condition()

    def __call__(self, item):
        with self.changed:
            self.append(item)
            self.changed.notify_all()

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self) >= count, TIMEOUT), self
            return list(self)


@pytest.fixture(name="seen")
def seen_fixture():
    return Seen()
