"""What the tests of long messages share."""

import execnet_c
import pytest

MIB = 1 << 20


@pytest.fixture(name="gw")
def gw_fixture():
    group = execnet_c.Group()
    yield group.makegateway()
    group.terminate(timeout=5.0)
