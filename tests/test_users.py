"""Programs from PyPI that use execnet do their basic job with execnet_c in its place, and the same on execnet beside it.

Each of them runs as its users start it, in a process of its own, untouched. What it came to has to be the same on both
libraries. They lie in a directory of their own, where `make test-needs` puts them; the test of one that is not there is
skipped, and says so.
"""

import importlib
import importlib.metadata
import os
import shlex
import shutil
import sqlite3
import sys

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("C-C and Python-Python have each core at both ends", allow_module_level=True)

from conftest import LIBS, TIMEOUT, wait_until
from programs_of_users import USERS, needs, runner_fixture, server_fixture  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.timeout(240), pytest.mark.deep]


# --- batou: deployments ------------------------------------------------------------------------------------------------

COMPONENT = """\
from batou.component import Component
from batou.lib.file import File


class {name}(Component):
    greeting = "Hello"

    def configure(self):
        self += File("said", content=self.greeting + " from {{{{host.name}}}}\\n")
"""
FAILING = """
    def update(self):
        self.cmd("echo what went wrong >&2; exit 3")

    def verify(self):
        from batou import UpdateNeeded
        raise UpdateNeeded()
"""
ENVIRONMENTS = {
    "here": ("local", "localhost = hello"),
    "broken": ("local", "localhost = broken"),
    "hosts": ("ssh", "h1 = hello\nh2 = hello"),
}


class Deployment:
    """A directory that batou deploys from."""

    def __init__(self, runner, directory):
        self.runner = runner
        self.directory = directory
        self.write(".batou.json", '{"migration": {"version": 2400}}\n')
        self.write("components/hello/component.py", COMPONENT.format(name="Hello"))
        self.write("components/broken/component.py", COMPONENT.format(name="Broken") + FAILING)
        for name, (method, hosts) in ENVIRONMENTS.items():
            text = f"[environment]\nconnect_method = {method}\n[hosts]\n{hosts}\n"
            if "hello" in hosts:
                text += "[component:hello]\ngreeting = Good day\n"
            self.write(f"environments/{name}/environment.cfg", text)
        runner.environment["APPENV_BASEDIR"] = str(directory)
        runner.environment["COLUMNS"] = "200"

    def write(self, name, text, mode=0o644):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def deploy(self, environment, status=0):
        return self.runner.script("batou", "deploy", environment, status=status)


@pytest.fixture
def deployment(runner, tmp_path):
    needs("batou")
    return Deployment(runner, tmp_path / "deployment")


def test_batou_deploys_here(deployment):
    output = deployment.deploy("here")
    assert "DEPLOYMENT FINISHED" in output
    assert "+Good day from localhost" in output, "what the far end says is shown"
    assert (deployment.directory / "work/hello/said").read_text() == "Good day from localhost\n"


def test_batou_tells_of_a_failing_deployment(deployment):
    output = deployment.deploy("broken", status=1)
    assert "DEPLOYMENT FAILED (during deploy)" in output
    assert "what went wrong" in output and "exit 3" in output


def test_batou_deploys_to_hosts(deployment, server):
    """Over ssh by a command line of its own: first with the host's Python, which sends batou over, then with the one
    that batou is installed for over there, and execnet with it, but not execnet_c."""
    python = f"env PYTHONPATH={shlex.quote(str(USERS))} {sys.executable} -S"
    deployment.write("appenv", f'#!/bin/sh\nshift\nexec {python} "$@"\n', 0o755)
    main = shlex.quote("from batou.main import main; main()")
    deployment.write("batou", f'#!/bin/sh\ncd "${{0%/*}}"\nAPPENV_BASEDIR=$PWD exec {python} -c {main} "$@"\n', 0o755)
    shutil.copy(server.ssh_config, deployment.directory / "ssh_config")
    targets = {host: server.home(host) / "deployment" for host in ("h1", "h2")}
    try:
        output = deployment.deploy("hosts")
        assert "DEPLOYMENT FINISHED" in output
        for host, target in targets.items():
            assert f"+Good day from {host}" in output
            assert (target / "work/hello/said").read_text() == f"Good day from {host}\n"
            assert os.access(target / "appenv", os.X_OK)
    finally:
        for target in targets.values():
            shutil.rmtree(target, ignore_errors=True)
    assert not (deployment.directory / "work").exists()


# --- logbook: records of other processes -------------------------------------------------------------------------------

LOGS = """
import logbook, os
from logbook.queues import ExecnetChannelHandler

log = logbook.Logger("over there")
with ExecnetChannelHandler(channel):
    log.info("{} of {number}", "one", number=2)
    try:
        {}["missing"]
    except KeyError:
        log.exception("it failed")
    with logbook.Processor(lambda record: record.extra.update(pid=os.getpid(), parts=["a", 1, None, b"b", 1.5])):
        log.warning("\\u20ac \\U0001f600")
"""


@pytest.fixture
def logbook():
    return pytest.importorskip("logbook")


@pytest.fixture
def subscriber():
    return pytest.importorskip("logbook.queues").ExecnetChannelSubscriber


def test_logbook_gets_records_from_there(logbook, subscriber, gw):
    channel = gw.remote_exec(LOGS)
    kept = logbook.TestHandler()
    with kept:
        subscribed = subscriber(channel)
        assert [subscribed.dispatch_once(TIMEOUT) for _ in range(4)] == [True] * 3 + [False]
    one, failed, euro = kept.records
    assert {record.channel for record in kept.records} == {"over there"}
    assert [record.message for record in kept.records] == ["one of 2", "it failed", "\N{EURO SIGN} \N{GRINNING FACE}"]
    assert [record.level_name for record in kept.records] == ["INFO", "ERROR", "WARNING"]
    assert "KeyError: 'missing'" in failed.formatted_exception
    pid = gw.remote_exec("import os; channel.send(os.getpid())").receive(TIMEOUT)
    assert one.process == euro.extra["pid"] == pid != os.getpid()
    assert euro.extra["parts"][:3] + euro.extra["parts"][4:] == ["a", 1, None, 1.5]


def test_logbook_knows_of_time_and_ends(logbook, subscriber, gw):
    channel = gw.remote_exec("channel.receive()")
    assert subscriber(channel).recv(timeout=0.01) is None, "nothing has come yet"
    channel.send(None)
    assert subscriber(channel).recv(timeout=TIMEOUT) is None, "nothing will come"
    assert subscriber(gw.remote_exec("1 / 0")).recv(timeout=TIMEOUT) is None, "over there it failed"


def test_logbook_gets_records_in_the_background(logbook, subscriber, gw):
    kept = logbook.TestHandler()
    controller = subscriber(gw.remote_exec(LOGS)).dispatch_in_background(kept)
    try:
        assert wait_until(lambda: len(kept.records) == 3)
    finally:
        controller.stop()
    assert kept.has_info("one of 2") and kept.has_error("it failed")


def test_logbook_sends_records_there(logbook, gw):
    channel = gw.remote_exec(
        """
        import logbook
        from logbook.queues import ExecnetChannelSubscriber

        subscriber = ExecnetChannelSubscriber(channel)
        kept = logbook.TestHandler()
        with kept:
            while len(kept.records) < 100:
                assert subscriber.dispatch_once(60)
        channel.send(kept.formatted_records)
        """
    )
    log = logbook.Logger("here")
    with pytest.importorskip("logbook.queues").ExecnetChannelHandler(channel):
        for number in range(100):
            log.notice("number {}", number)
    assert channel.receive(TIMEOUT) == [f"[NOTICE] here: number {number}" for number in range(100)]


# --- ll.url: files on hosts --------------------------------------------------------------------------------------------

URLS = """
    from ll import url

    def refused(function, *arguments, **more):
        try:
            function(*arguments, **more)
        except Exception as exc:
            return type(exc).__name__, getattr(exc, "errno", None)

    outcome = {}
    top = url.URL(f"{SCHEME}://{LOGIN}{TOP}/")
    text, data = top/"below/a%20text.txt", top/"data.bin"
    everything = bytes(range(256)) * 4000
    with url.Context():
        with text.open(mode="w", encoding="utf-8") as file:
            file.write("one\\n\\u20ac\\n")
            file.writelines(["three\\n", "four"])
        outcome["text"] = text.open(mode="r", encoding="utf-8").read()
        with text.open(mode="r", encoding="utf-8") as file:
            outcome["pieces"] = [file.readline(), file.read(3), file.tell() > 0, file.readlines()]
            file.seek(0)
            outcome["lines"] = list(file)
        outcome["closed"] = refused(file.read)
        with data.open("wb") as file:
            file.write(everything)
        with data.open("rb") as file:
            outcome["data"] = file.read() == everything
            outcome["resource"] = file.size(), file.mimetype()
        outcome["kinds"] = [(one.exists(), one.isfile(), one.isdir(), one.islink()) for one in (top, text, top/"nothing")]
        outcome["list"] = sorted(str(one) for one in top.listdir())
        outcome["walk"] = sorted(str(one) for one in top.walkall())
        outcome["pattern"] = [str(one) for one in top.files(include="*.bin")]
        text.chmod(0o600)
        outcome["stat"] = text.stat().st_mode & 0o777, text.size() == len("one\\nXXX\\nthree\\nfour")
        outcome["owner"] = text.owner(), text.uid(), data.gid()
        outcome["no such"] = refused((top/"nothing").open), refused((top/"nothing").remove), refused((top/"nothing").stat)
        data.rename(top/"moved.bin")
        (top/"moved.bin").symlink(top/"link")
        outcome["link"] = (top/"link").islink(), (top/"link").open("rb").read() == everything
        (top/"made/in/depth/").makedirs()
        (top/"moved.bin").remove()
        (top/"made/in/depth/").rmdir()
        outcome["left"] = sorted(str(one) for one in top.listdir())
    print(outcome)
"""


@pytest.mark.parametrize("scheme", ["ssh", "ssh-nocheck"])
def test_ll_url_works_with_files_on_a_host(runner, server, scheme):
    needs("ll-xist")
    top = runner.directory / "there"
    top.mkdir()
    login = f"{server.user}@h1"
    found = runner.program(URLS, SCHEME=scheme, LOGIN=login, TOP=str(top))
    lines = ["one\n", "\N{EURO SIGN}\n", "three\n", "four"]
    no_such = ("FileNotFoundError", 2)
    info = (top / "below/a text.txt").stat()
    assert found == {
        "text": "".join(lines),
        "pieces": ["one\n", "\N{EURO SIGN}\nt", True, ["hree\n", "four"]],
        "lines": lines,
        "closed": ("ValueError", None),
        "data": True,
        "resource": (256 * 4000, "application/octet-stream"),
        "kinds": [(True, False, True, False), (True, True, False, False), (False, False, False, False)],
        "list": ["below/", "data.bin"],
        "walk": ["below/", "below/a%20text.txt", "data.bin"],
        "pattern": ["data.bin"],
        "stat": (0o600, True),
        "owner": (server.user, info.st_uid, info.st_gid),
        "no such": (no_such, no_such, no_such),
        "link": (True, True),
        "left": ["below/", "link", "made/"],
    }
    assert (top / "below/a text.txt").read_text(encoding="utf-8") == "".join(lines)


# --- devpi: what its server keeps --------------------------------------------------------------------------------------

KEYFS = """
    import sqlite3, warnings
    warnings.simplefilter("ignore")
    import py
    from devpi_server import fileutil, keyfs_sqlite
    from devpi_server.keyfs import KeyFS

    assert fileutil._Serializer is execnet.gateway_base._Serializer
    values = {
        "user": {"name": "root", "indexes": {"dev": {"bases": ("root/pypi",), "volatile": True}, "\\u20ac": {}}},
        "set": {"a", ("b", 1)},
        "list": [1, -1, 2 ** 31 - 1, 2 ** 31, 2 ** 80, 1.5, None, False, b"\\0\\xff", [], {}, (), "\\u20ac" * 999],
    }
    more = [frozenset([1]), 1 + 2j, -2.5e300, {(1, None): {b"": [set()]}}]
    outcome = {"dumped": {name: fileutil.dumps(values[name]).hex() for name in ("user", "list")}}
    outcome["loaded"] = [fileutil.loads(fileutil.dumps(value)) == value for value in [*values.values(), *more]]

    def opened():
        keyfs = KeyFS(py.path.local(BASE), keyfs_sqlite.Storage)
        return keyfs, {name: keyfs.add_key(name.upper(), "some/" + name, type(value)) for name, value in values.items()}

    keyfs, keys = opened()
    for name, key in keys.items():
        with keyfs.transaction(write=True):
            key.set(values[name])
    with keyfs.transaction(write=True):
        with keys["user"].update() as user:
            user["name"] = "somebody"
    keyfs, keys = opened()
    with keyfs.transaction():
        outcome["kept"] = [keys[name].get(readonly=False) == values[name] for name in ("set", "list")]
        outcome["names"] = [keys["user"].get()["name"], keyfs.tx.get_value_at(keys["user"], 0)["name"]]
    with sqlite3.connect(BASE + "/" + keyfs_sqlite.Storage.db_filename) as database:
        rows = database.execute("SELECT data FROM changelog ORDER BY serial").fetchall()
    outcome["rows"] = [bytes(data).hex() for [data] in rows[:1] + rows[2:]]  # nobody knows the order in a set
    for what, refused in (
        ("dumps", lambda: fileutil.dumps([object()])),
        ("loads", lambda: fileutil.loads(b"foo")),
        ("channel", lambda: fileutil.loads(b"B\\0\\0\\0\\1Q")),
    ):
        try:
            refused()
        except Exception as exc:
            kinds = execnet.DumpError, execnet.LoadError, NotImplementedError
            outcome[what] = [isinstance(exc, kind) for kind in kinds]
    print(outcome)
"""


@pytest.fixture
def devpi():
    needs("devpi-server")


def test_devpi_keeps_values(devpi, runner, tmp_path):
    """What is in its database is byte for byte the same, whichever of the two wrote it."""
    found = runner.program(KEYFS, BASE=str(tmp_path / "keyfs"))
    user = bytes.fromhex(found["dumped"]["user"])
    written = [bytes.fromhex(row) for row in found["rows"]]
    assert user[:-1] in written[0], "what dumps() gives is what is kept"
    assert bytes.fromhex(found["dumped"]["list"])[:-1] in written[1]
    del found["dumped"]["list"], found["rows"]
    assert found == {
        "dumped": {"user": USER.hex()},
        "loaded": [True] * 7,
        "kept": [True, True],
        "names": ["somebody", "root"],
        "dumps": [True, False, False],
        "loads": [False, True, False],
        "channel": [False, False, True],
    }


def text(value):
    return b"N" + len(value.encode()).to_bytes(4, "big") + value.encode()


DEV = b"J" + text("bases") + text("root/pypi") + b"@\0\0\0\1P" + text("volatile") + b"RP"
INDEXES = b"J" + text("dev") + DEV + b"P" + text("\N{EURO SIGN}") + b"JP"
USER = b"J" + text("name") + text("root") + b"P" + text("indexes") + INDEXES + b"PQ"


def test_devpi_makes_a_server(devpi, runner, tmp_path):
    output = runner.script("devpi-init", "--serverdir", tmp_path, "--no-root-pypi")
    assert "created user 'root'" in output
    with sqlite3.connect(tmp_path / ".sqlite") as database:
        [[data]] = database.execute("SELECT data FROM changelog").fetchall()
    database.close()
    for library in LIBS:
        changes, _ = importlib.import_module(library).loads(b"\2" + data)
        keyname, _, value = changes["root/.config"]
        assert keyname == "USER" and set(value) >= {"created", "pwhash"}, "either reads what one of them wrote"
