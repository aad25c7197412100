"""execnet's module gateway_bootstrap: what it has for others. How a far end comes to life stands in bootstrap.py."""

from .near.deaths import HostNotFound  # noqa: F401
from .near.transport import IMPORT_DIR as importdir  # noqa: F401
