"""A host for ssh: the private sshd of the tests, on loopback."""

import contextlib
import os
import sys

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "tests")


@contextlib.contextmanager
def own():
    """(host, ssh_config), or (None, what is missing). The Python at that host has no packages installed."""
    sys.path.insert(0, TESTS)
    import sshd

    if reason := sshd.why_not():
        yield None, reason
        return
    base = os.path.realpath(sys.executable)
    try:
        server = sshd.Server({"h1": sshd.Host({"python3": base})})
    except sshd.CannotLogIn as error:
        yield None, str(error)
        return
    try:
        yield "h1", str(server.ssh_config)
    finally:
        server.stop()
