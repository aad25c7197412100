"""What the tests of RSync share: a source directory, and checks after a failure."""

import pytest

import execnet_c
from conftest import TIMEOUT
from masters import wait_until
from trees import Quiet


@pytest.fixture(name="source")
def source_fixture(tmp_path):
    path = tmp_path / "source"
    (path / "sub").mkdir(parents=True)
    (path / "a").write_bytes(b"content of a")
    (path / "sub" / "b").write_bytes(b"b" * 1000)
    return path


def assert_free(gateway):
    """No task runs at the far end any more."""
    assert wait_until(lambda: gateway.remote_status().numexecuting == 0, TIMEOUT)


def failing(source, targets, finished, *words):
    """Send, which must fail with these words; return the RSyncError. The ids of targets that have all go to `finished`."""
    rsync = Quiet(source)
    for gateway, directory in targets:
        rsync.add_target(gateway, directory, lambda id=gateway.id: finished.append(id))
    with pytest.raises(execnet_c.RSyncError) as error:
        rsync.send()
    for word in words:
        assert word in str(error.value), str(error.value)
    return error.value
