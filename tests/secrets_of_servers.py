"""What the tests of sockets with a secret share."""

import pytest

from socket_servers import SECRET, our_server


@pytest.fixture(name="no_secret")
def no_secret_fixture(monkeypatch):
    for name in ("EXECNET_C_SECRET", "EXECNET_C_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(name="guarded")
def guarded_fixture(no_secret):
    with our_server(EXECNET_C_SECRET=SECRET) as server:
        assert server.wants_secret
        yield server


@pytest.fixture(name="known")
def known_fixture(guarded, monkeypatch):
    """A server whose secret this side has, too."""
    monkeypatch.setenv("EXECNET_C_SECRET", SECRET)
    return guarded


def hear(connection, heard):
    try:
        while data := connection.recv(100000):
            heard.append(data)
    except OSError:
        pass
