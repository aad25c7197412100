"""What execnet's documentation shows with other interpreters, hosts and servers; the rest of it is in test_documented.py.

Where an example wants what is nowhere any more (a Python 2, Jython, IronPython) another interpreter that we can reach
stands for it; for hosts elsewhere those of ssh_hosts.py; for a Subversion repository a folder with one file a revision.
"""

import io
import itertools
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys

import pairing
import pytest

from conftest import TIMEOUT
from far_ends import PLAIN
from gateways import evaluate
from ssh_hosts import server_fixture  # noqa: F401 (fixtures)
from test_socket import execnet_s_server, our_server

foreign = pytest.mark.skipif(
    pairing.name in ("C-Python", "Python-C"), reason="foreign far ends have a core of their own: C-C and Python-Python do"
)
HERE = [end for end in PLAIN if not end.missing]
CPYTHONS = [end for end in HERE if end.name.startswith("cpython")]
PYPYS = [end for end in HERE if end.name.startswith("pypy")]
OTHERS = [*CPYTHONS[:1], *PYPYS[:1]]
on_others = pytest.mark.parametrize("end", OTHERS, ids=[end.name for end in OTHERS])

# A connection and an interpreter on a busy machine.
SLOW_TIMEOUT = 60.0


@pytest.fixture
def there(server):
    """A folder on h1."""
    path = server.home("h1") / "documented"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["ours", "execnet"])
def any_server(request):
    with our_server() if request.param == "ours" else execnet_s_server() as server:
        yield server


# ---- other interpreters


@foreign
@on_others
def test_values_in_a_file_of_another_interpreter(lib, end, tmp_path):
    """One writes them with execnet, the other reads them; and the other way round."""
    package = os.path.dirname(pytest.importorskip("execnet").__file__)
    shutil.copytree(package, tmp_path / "there" / "execnet", ignore=shutil.ignore_patterns("__pycache__"))
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    values = ["oak", b"\xff", {"a": (1, 2.5)}, 1 << 70]
    ours.write_bytes(lib.dumps(values))
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "there")!r})
import execnet
with open({str(ours)!r}, "rb") as file:
    values = execnet.load(file)
assert values == {values!r}, values
with open({str(theirs)!r}, "wb") as file:
    execnet.dump(file, values)
"""
    done = subprocess.run([*end.command, "-B", "-c", code], capture_output=True, encoding="utf-8", timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()
    assert lib.load(io.BytesIO(theirs.read_bytes())) == values
    assert lib.loads(theirs.read_bytes(), py2str_as_py3str=True) == values


@foreign
@on_others
def test_an_array_that_grows_over_there(group, end):
    channel = group.makegateway(end.spec()).remote_exec(
        """
        import array
        numbers = array.array("i", [1, 2, 3])
        for item in iter(channel.receive, None):
            numbers.append(item)
        channel.send(repr(numbers))
        """
    )
    for number in itertools.chain(range(10), [None]):
        channel.send(number)
    assert channel.receive() == "array('i', [1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])"


@foreign
@pytest.mark.skipif(not PYPYS, reason="there is no PyPy here")
def test_objects_that_only_the_other_interpreter_has(group):
    """What the documentation does with Jython's and IronPython's: a type that CPython does not know."""
    gateway = group.makegateway(PYPYS[0].spec())
    channel = gateway.remote_exec(
        """
        from __pypy__.builders import StringBuilder
        builder = StringBuilder()
        for word in ("elm", "oak"):
            builder.append(word)
            channel.send(word)
        channel.send([builder.build(), type(builder).__name__])
        """
    )
    assert list(channel) == ["elm", "oak", ["elmoak", "StringBuilder"]]
    with pytest.raises(channel.RemoteError, match="DumpError"):
        gateway.remote_exec("from __pypy__.builders import StringBuilder; channel.send(StringBuilder())").waitclose(TIMEOUT)


@foreign
@on_others
def test_strings_another_way(lib, group, end):
    """For a gateway from now on, and for one channel; test_coercion.py has all of it."""
    gateway = group.makegateway(end.spec())
    assert gateway.remote_exec("channel.send('oak')").receive() == "oak"
    gateway.reconfigure(py3str_as_py2str=True)
    assert gateway.remote_exec("channel.send('oak')").receive() == b"oak"
    channel = gateway.remote_exec("channel.send(type(channel.receive()).__name__)")
    channel.send("a")
    assert channel.receive() == b"bytes"
    channel = gateway.remote_exec("channel.send(type(channel.receive()).__name__)")
    channel.reconfigure(py2str_as_py3str=False)
    channel.send("a")
    assert channel.receive() == "str"


# ---- hosts


@foreign
def test_specs_of_hosts(lib, server, group, there):
    """A Python, a place and an option of ssh's own; without a place it is where a login begins."""
    gateway = group.makegateway(server.spec("h1", "python=python3", f"chdir={there / 'nest'}"))
    assert os.path.realpath(evaluate(gateway, "os.getcwd()")) == os.path.realpath(there / "nest")
    gateway = group.makegateway(server.spec(f"-p {server.port} h1", "python=python"))
    assert os.path.realpath(evaluate(gateway, "os.getcwd()")) == os.path.realpath(pwd.getpwnam(server.user).pw_dir)


@foreign
def test_facts_of_an_account(lib, server, group):
    gateway = group.makegateway(server.spec("h1", "python=python"))
    channel = gateway.remote_exec(
        """
        import os, sys
        channel.send((sys.platform, tuple(sys.version_info), os.getpid()))
        """
    )
    platform, version, pid = channel.receive(SLOW_TIMEOUT)
    assert platform == sys.platform
    assert version[0] == 3 and len(version) == 5
    assert pid in server.sessions()


@foreign
def test_a_group_of_one_kind_of_gateway(lib, server, group, there):
    group.defaultspec = server.spec("h1", "python=python", f"chdir={there / 'mine'}", "nice=20")
    gateway = group.makegateway()
    assert evaluate(gateway, "os.path.basename(os.getcwd())") == "mine"
    assert evaluate(gateway, "os.getpriority(os.PRIO_PROCESS, os.getpid())") == 19
    assert (there / "mine").is_dir()


def serve_files(channel):
    for path in channel:
        with open(path, "rb") as file:
            channel.send(file.read())


@foreign
def test_contents_of_files_there(lib, server, group, there):
    contents = {"leaf": b"green\n", "root": bytes(range(256)) * 2000, "nothing": b""}
    for name, content in contents.items():
        (there / name).write_bytes(content)
    channel = group.makegateway(server.spec("h1", "python=python")).remote_exec(serve_files)
    for name, content in contents.items():
        channel.send(str(there / name))
        assert channel.receive(SLOW_TIMEOUT) == content
    channel.send(str(there / "missing"))
    with pytest.raises(lib.RemoteError, match="FileNotFoundError"):
        channel.receive(SLOW_TIMEOUT)


class Facts:
    """What is asked of a host, and asked once."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.asked = {}

    def __call__(self, code):
        if code not in self.asked:
            self.asked[code] = self.gateway.remote_exec(code).receive(SLOW_TIMEOUT)
        return self.asked[code]

    def attribute(self, name):
        return self(f"import {name.partition('.')[0]}\nchannel.send({name})")

    def processors(self):
        return self(
            """
            with open("/proc/cpuinfo") as file:
                fields = [line.partition(":") for line in file]
            channel.send(sum(name.strip() == "processor" for name, _, _ in fields))
            """
        )


@foreign
def test_facts_of_the_hosts_in_a_file(lib, server, group, tmp_path):
    """The hosts of an ssh_config, but for those to be left out; who can not be reached is told, and the next one asked."""
    config = tmp_path / "config"
    names = re.findall(r"^Host (h1|h2|unknown)$", server.ssh_config.read_text(), re.M)
    assert sorted(names) == ["h1", "h2", "unknown"]
    config.write_text(f"Include {server.ssh_config}\n" + "".join(f"Host {name}\n" for name in names))
    hosts = re.findall(r"Host\s+(\S+)", config.read_text())
    left_out, told, unreachable = {"h2"}, {}, []
    for host in hosts:
        if host in left_out:
            continue
        try:
            facts = Facts(group.makegateway(f"ssh=-F {config} {host}//python=python"))
        except (lib.HostNotFound, BrokenPipeError):  # the latter in execnet where ssh has ended very soon
            unreachable.append(host)
            continue
        told[host] = facts.attribute("sys.platform"), facts.attribute("sys.version_info[0]"), facts.processors()
        assert facts.attribute("sys.platform") == told[host][0] and len(facts.asked) == 3
        with pytest.raises(lib.RemoteError, match="DumpError: .*version_info"):
            facts.attribute("sys.version_info")
    assert unreachable == ["unknown"]
    with open("/proc/cpuinfo") as file:
        count = sum(line.startswith("processor") for line in file)
    assert told == {"h1": (sys.platform, 3, count)}


# The source's side of a copy that is kept up to date: it sends the revisions that are not there yet in pieces over a
# channel of their own, and as many pieces at a time as the other side has asked for.
SEND_REVISIONS = """
import os
last, folder = channel.receive()
for _ in channel:
    revisions = sorted(int(name) for name in os.listdir(folder) if int(name) > last)
    if not revisions:
        channel.send(None)
        continue
    pieces = channel.gateway.newchannel()
    channel.send((revisions[0], revisions[-1]))
    channel.send(pieces)
    credit = pieces.receive()
    for number in revisions:
        with open(os.path.join(folder, str(number))) as file:
            for text in iter(lambda: file.read(1000), ""):
                pieces.send((number, text))
                credit -= 1
                if credit == 0:
                    credit = pieces.receive()
    pieces.close()
    last = revisions[-1]
"""


def take_revisions(channel, folder, credit=3):
    """One look: (first, last) of what came, and how many times more was asked for."""
    channel.send("look")
    revisions = channel.receive(SLOW_TIMEOUT)
    if revisions is None:
        return None
    pieces = channel.receive(SLOW_TIMEOUT)
    pieces.send(credit)
    left, asked = credit, 0
    for number, text in pieces:
        with open(folder / str(number), "a") as file:
            file.write(text)
        left -= 1
        if left == 0:
            pieces.send(credit)
            left, asked = credit, asked + 1
    return (*revisions, asked)


@foreign
def test_a_copy_that_is_kept_up_to_date(lib, server, group, there, tmp_path):
    def commit(number, size):
        (there / str(number)).write_text(f"revision {number}\n" * size)

    def contents(folder):
        return {path.name: path.read_text() for path in folder.iterdir()}

    copy = tmp_path / "copy"
    copy.mkdir()
    for number in range(1, 4):
        commit(number, 300)
    shutil.copy(there / "1", copy)
    channel = group.makegateway(server.spec("h1", "python=python")).remote_exec(SEND_REVISIONS)
    channel.send((1, str(there)))
    assert take_revisions(channel, copy) == (2, 3, 2), "eight pieces"
    assert contents(copy) == contents(there)
    assert take_revisions(channel, copy) is None
    commit(4, 1)
    commit(5, 1000)
    assert take_revisions(channel, copy) == (4, 5, 4), "thirteen pieces"
    assert contents(copy) == contents(there)
    channel.close()


# ---- servers


def test_a_server_is_all_that_is_needed(lib, group, any_server):
    gateway = group.makegateway(f"socket={any_server.address}")
    channel = gateway.remote_exec("channel.send(channel.receive() + 1)")
    channel.send(41)
    assert channel.receive(TIMEOUT) == 42
    assert gateway.remoteaddress == any_server.address


def test_a_server_that_another_gateway_installs(lib, group):
    group.makegateway("popen//id=first")
    gateway = group.makegateway("socket//installvia=first//id=second")
    assert gateway.id == "second" and evaluate(gateway, "6 * 7") == 42


@pytest.mark.any_core
def test_the_word_that_ends_a_server():
    """execnet's server ends when anybody says so, which its script quitserver does; ours does not."""
    for serve, ends in ((execnet_s_server, True), (our_server, False)):
        with serve() as server:
            host, _, port = server.address.rpartition(":")
            with socket.create_connection((host, int(port)), TIMEOUT) as peer:
                peer.sendall(b'"raise KeyboardInterrupt"\n')
                assert peer.recv(1) == b""
            if ends:
                server.wait(TIMEOUT)
            assert (server.poll() is not None) == ends
