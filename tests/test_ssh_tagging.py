"""tag_corpus.py over hosts that have NLTK in environments of their own, over some that do not, and over some that fail."""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("hosts over ssh have a core of their own: C-C and Python-Python do", allow_module_level=True)

import ssh_hosts
import sshd
import tagging
from conftest import wait_until
from far_ends import PLAIN
from test_examples import LINES, LONG_TEXT, in_process, kill_during_work, start, tagged_here

pytestmark = pytest.mark.timeout(300)

SLOW_TIMEOUT = 200
PIP_TIMEOUT = 180


def _distributions(name):
    """The installed distribution of that name, and those that it needs, without extras."""
    found, wanted = {}, [name]
    while wanted:
        distribution = importlib.metadata.distribution(wanted.pop())
        if distribution.name in found:
            continue
        found[distribution.name] = distribution
        needs = [need for need in distribution.requires or () if "extra ==" not in need and "Windows" not in need]
        wanted += [re.match(r"[\w.-]+", need)[0] for need in needs]
    return found.values()


def _environment(python, directory):
    subprocess.run([python, "-m", "venv", "--without-pip", directory], check=True, stdin=subprocess.DEVNULL)
    return directory


def _linked_environment(directory):
    """Of the Python that runs this: it has NLTK, and what that needs, as they are installed here; and nothing else."""
    _environment(sys.executable, directory)
    [packages] = directory.glob("lib/python*/site-packages")
    here = Path(sysconfig.get_paths()["purelib"])
    for distribution in _distributions("nltk"):
        for top in {Path(file).parts[0] for file in distribution.files}:
            if top not in ("..", "__pycache__") and (here / top).exists() and not (packages / top).exists():
                (packages / top).symlink_to(here / top)
    return directory


def _other_python():
    """One that is not of our version, and that a current NLTK can still be had for."""
    for end in reversed(PLAIN):
        version = re.match(r"cpython3\.(\d+)\.", end.name)
        if not end.missing and version and 9 <= int(version[1]) != sys.version_info[1]:
            return end.command[0]
    return None


def _installed_environment(directory):
    """Of another Python: it has an NLTK that pip has installed there."""
    python = _other_python()
    if python is None:
        return None, "there is no CPython of another version"
    _environment(python, directory)
    # This environment's pip fills the other one: that saves a second pip.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(directory / "bin" / "python")]
    try:
        done = subprocess.run(
            [*pip, "install", "--quiet", "--only-binary=:all:", "nltk>=3.9"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PIP_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return None, f"pip has not installed nltk within {PIP_TIMEOUT} seconds"
    if done.returncode:
        return None, f"pip can not install nltk for {python}: {done.stderr.strip()[-500:]}"
    return directory, None


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    tagging.tagger()
    directory = tmp_path_factory.mktemp("environments")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def server(environments):
    """linked1 and linked2: our Python, each with an NLTK; bare: without one. down: nobody listens."""
    hosts = {name: sshd.Host(path=[_linked_environment(environments / name) / "bin"]) for name in ("linked1", "linked2")}
    hosts["bare"] = sshd.Host(path=[_environment(sys.executable, environments / "bare") / "bin"])
    with ssh_hosts.serving(hosts, elsewhere={"down": {"Port": 1}, "unknown": {"HostName": "no-such-host.invalid"}}) as server:
        yield server


@pytest.fixture
def long_file(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text(LONG_TEXT, encoding="utf-8")
    return path


def tag(server, cwd, file, *specs, timeout=SLOW_TIMEOUT):
    arguments = [word for spec in specs for word in ("--tx", spec)]
    before = server.log().count("Starting session")
    done = subprocess.run(
        tagging.command("tag_corpus.py", file, *arguments),
        cwd=cwd,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert wait_until(lambda: not server.sessions()), "processes are left over there"
    done.sessions = server.log().count("Starting session") - before
    return done


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def failures(stderr):
    return {int(number): why for number, why in re.findall(r"gateway (\d+) \(.*?\) failed: (.*)", stderr)}


def test_local_gateways_and_hosts(tmp_path, server, long_file):
    specs = ["2*popen", server.spec("linked1"), server.spec("linked2", "python=python3")]
    done = tag(server, tmp_path, long_file, *specs)
    assert (done.stdout, done.returncode) == (in_process(LONG_TEXT), 0), done.stderr
    assert failures(done.stderr) == {}
    assert "4 gateway(s)" in done.stderr
    assert done.sessions == 2


@pytest.mark.deep
def test_hosts_alone_do_all_the_work(tmp_path, server, long_file):
    done = tag(server, tmp_path, long_file, "2*" + server.spec("linked1"), server.spec("linked2"))
    assert (done.stdout, done.returncode) == (in_process(LONG_TEXT), 0), done.stderr
    assert failures(done.stderr) == {}
    assert done.sessions == 3


@pytest.mark.deep
@pytest.mark.any_core
def test_a_host_with_another_python_and_its_own_nltk(tmp_path, server, environments, long_file):
    directory, reason = _installed_environment(environments / "installed")
    if directory is None:
        pytest.skip(reason)
    done = tag(server, tmp_path, long_file, server.spec("linked1", f"python={directory}/bin/python"))
    assert (done.stdout, done.returncode) == (in_process(LONG_TEXT), 0), done.stderr
    assert failures(done.stderr) == {}


@pytest.mark.deep
def test_a_host_without_nltk_is_named_and_the_others_go_on(tmp_path, server, long_file):
    specs = ["popen", server.spec("bare"), server.spec("linked1")]
    done = tag(server, tmp_path, long_file, *specs)
    assert (done.stdout, done.returncode) == (in_process(LONG_TEXT), 0), done.stderr
    assert list(failures(done.stderr)) == [2]
    [line] = [line for line in done.stderr.splitlines() if "failed" in line]
    assert "ssh=bare" in line and "can not import nltk; install nltk for it" in line


def test_only_a_host_without_nltk(tmp_path, server, long_file):
    done = tag(server, tmp_path, long_file, server.spec("bare"))
    assert (done.stdout, done.returncode) == ("", 1)
    assert "ssh=bare" in done.stderr and "install nltk" in done.stderr
    assert done.stderr.endswith("no gateway is left to go on\n")


@pytest.mark.deep
@pytest.mark.any_core
def test_hosts_that_are_not_there_are_named_and_the_others_go_on(tmp_path, server, long_file):
    done = tag(server, tmp_path, long_file, server.spec("down"), "popen", server.spec("unknown"), server.spec("linked1"))
    assert (done.stdout, done.returncode) == (in_process(LONG_TEXT), 0), done.stderr
    failed = failures(done.stderr)
    assert sorted(failed) == [1, 3]
    assert "HostRefused" in failed[1] and "refused" in failed[1]
    assert "HostUnknown" in failed[3] and "resolve" in failed[3]


def test_a_local_gateway_that_is_killed_beside_a_host(tmp_path, server, long_file):
    with start(tmp_path, "tag_corpus.py", long_file, "--tx", "popen", "--tx", server.spec("linked1")) as process:
        printed, said = kill_during_work(process, lambda pids: [pid for pid in pids if b"ssh" not in command_of(pid)])
    assert "Traceback" not in said and "failed" not in said
    assert (printed, process.returncode) == (in_process(LONG_TEXT), 0)
    assert wait_until(lambda: not server.sessions()), "processes are left over there"


@pytest.mark.deep
@pytest.mark.any_core
@pytest.mark.parametrize("program", ["tag_corpus.py", "tag_stream.py"])
def test_a_host_that_is_lost_in_the_middle(tmp_path, server, program):
    text, expected = LONG_TEXT, in_process(LONG_TEXT)
    arguments = ["--tx", "popen", "--tx", server.spec("linked1")]
    if program == "tag_stream.py":
        text, expected = "".join(f"{line}\n" for line in LINES), tagged_here(LINES)
    else:
        (tmp_path / "long.txt").write_text(text, encoding="utf-8")
        arguments.append("long.txt")
    with start(tmp_path, program, *arguments, stdin=subprocess.PIPE) as process:
        if program == "tag_stream.py":
            process.stdin.write(text[:2000].encode())
        first = process.stdout.readline()
        sessions = {pid for pid in server.sessions() if sshd.stat_of(pid)[0].startswith("sshd")}
        assert sessions
        for pid in sessions:
            os.kill(pid, signal.SIGKILL)
        rest, said = process.communicate(text[2000:].encode() if program == "tag_stream.py" else None, timeout=SLOW_TIMEOUT)
    assert b"Traceback" not in said and b"failed" not in said
    assert ((first + rest).decode(), process.returncode) == (expected, 0)
    assert wait_until(lambda: not server.sessions()), "processes are left over there"
