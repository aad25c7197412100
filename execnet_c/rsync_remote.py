"""execnet's module rsync_remote is far/rsync_remote.py."""

import sys

from .far import rsync_remote

sys.modules[__name__] = rsync_remote
