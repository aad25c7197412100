"""execnet's module gateway_bootstrap: what it has for others. How a far end comes to life stands in bootstrap.py."""

from .deaths import HostNotFound  # noqa: F401
from .transport import IMPORT_DIR as importdir  # noqa: F401
