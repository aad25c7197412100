"""execnet's module gateway_bootstrap: those of its names that programs use. The handshake is in near/bootstrap.py."""

from .near.deaths import HostNotFound  # noqa: F401
from .near.transport import IMPORT_DIR as importdir  # noqa: F401
