"""Servers for gateways over sockets, listeners that pretend to be one, and what tests ask of them."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

import execnet_c
from conftest import TIMEOUT
from execnet_c.far import socketserver
from gateways import evaluate

SECRET = "correct horse battery staple"
SOON = 15.0


@contextmanager
def running(command, **env):
    """A running program, and the first line that it prints."""
    full = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=full, text=True)
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@contextmanager
def our_server(*options, address=":0", **env):
    command = [sys.executable, "-m", "execnet_c", "socketserver", address, *options]
    with running(command, **env) as (process, line):
        found = re.match(r"listening on (\S+:\d+)(, with a secret)?$", line)
        assert found, line
        process.address = found[1]
        process.wants_secret = bool(found[2])
        yield process


def refused(spec, kind, match, within=SOON):
    """Check that making a gateway of `spec` fails with this error, soon, and leaves no gateway; return the error."""
    group = execnet_c.Group()
    start = time.monotonic()
    try:
        with pytest.raises(kind, match=match) as error:
            group.makegateway(spec)
        assert time.monotonic() - start < within
        assert list(group) == []
    finally:
        group.terminate(timeout=1.0)
    return error.value


@contextmanager
def answering(answer):
    """An address where `answer(connection)` is called for each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection:
                    try:
                        answer(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield "127.0.0.1:%d" % listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def converse(address, *sayings):
    """Send all sayings; return all that the server sends. The server may hang up before it has got all of them."""
    heard = b""
    with socket.create_connection(socketserver.address_of(address), TIMEOUT) as peer:
        try:
            for saying in sayings:
                peer.sendall(saying)
            peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        try:
            while data := peer.recv(65536):
                heard += data
        except ConnectionError:
            pass
    return heard


def serves(address):
    group = execnet_c.Group()
    try:
        return evaluate(group.makegateway(f"socket={address}"), "os.environ.get('EXECNET_C_SECRET')") is None
    finally:
        group.terminate(timeout=TIMEOUT)
