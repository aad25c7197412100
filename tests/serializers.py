"""What the tests of the serializer share: both of them, and what neither sends."""

import pytest

from execnet_c import _core
from execnet_c.twin import pyserializer


@pytest.fixture(name="ser", params=[_core, pyserializer], ids=["C", "Python"])
def ser_fixture(request):
    return request.param


class Unsendable:
    pass
