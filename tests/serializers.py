"""What the tests of the serializers share: both serializers, and a class whose objects neither can send."""

import pytest

from execnet_c import _core
from execnet_c.twin import pyserializer


@pytest.fixture(name="ser", params=[_core, pyserializer], ids=["C", "Python"])
def ser_fixture(request):
    return request.param


class Unsendable:
    pass
