"""pytest-xdist on execnet_c, with no change but `-p execnet_c.pytest_plugin`: the real one, on small suites, beside the
same on execnet."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pairing
import pytest

if pairing.name in ("C-Python", "Python-C"):
    pytest.skip("C-C and Python-Python have each core at both ends, and each run is a whole pytest", allow_module_level=True)

import ssh_hosts
import sshd
from masters import MARK, is_gone, living, wait_until
from test_terminal import CTRL_C, Terminal

pytestmark = [pytest.mark.ours, pytest.mark.timeout(300)]

LIMIT = 120
PLUGIN = ["-p", "execnet_c.pytest_plugin"]
WITHOUT = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]  # the latter takes its second to be imported
ROOT = Path(__file__).resolve().parent

# Every process of it says which library it runs on, and on which core of ours; each test, which worker it ran in.
CONFTEST = """
import os
import sys

def pytest_configure(config):
    import execnet
    library = execnet.Group.__module__.partition(".")[0]
    expected = os.environ.get("EXPECTED_LIBRARY", "execnet_c")
    assert library == expected, f"{library} {getattr(config, 'workerinput', 'here')}"
    if library == "execnet_c":
        end = "far" if sys.argv == ["-c"] else "near"
        cores = {"C": "execnet_c._core", "Python": "execnet_c.twin.pycore", None: "execnet_c"}
        assert cores[os.environ.get("EXPECTED_" + end)] in sys.modules

def pytest_runtest_logreport(report):
    if report.when == "call" and "EXPECTED_LOG" in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(os.environ["EXPECTED_LOG"], "a") as file:
            print(report.nodeid, report.outcome, getattr(report, "worker_id", "-"), file=file)
"""

COUNTS = re.compile(r"(\d+) (passed|failed|skipped|xfailed|xpassed|errors?|warnings?|deselected|rerun)\b")


class Result:
    def __init__(self, returncode, output, log):
        self.returncode = returncode
        self.output = output
        closing = [line for line in output.splitlines() if COUNTS.search(line) and re.search(r" in [\d.]+s", line)]
        self.counts = {what.rstrip("s"): int(n) for n, what in COUNTS.findall(closing[-1])} if closing else {}
        runs = [line.rsplit(" ", 2) for line in log.splitlines()]
        self.outcomes = sorted((test, outcome) for test, outcome, _ in runs)
        self.workers = {}  # name -> the tests that it ran
        for test, _, worker in runs:
            self.workers.setdefault(worker, set()).add(test)

    def passed(self, **counts):
        assert (self.returncode, self.counts) == (0, counts), self.output


class Suite:
    def __init__(self, directory):
        self.directory = directory
        self.log = directory / "log"
        self.write("conftest.py", CONFTEST)

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def environment(self, library):
        self.log.write_text("")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
        expected = {"LIBRARY": library, "LOG": str(self.log), "near": pairing.near, "far": pairing.far}
        env.update({"EXPECTED_" + name: value for name, value in expected.items()}, COLUMNS="200")
        return env

    def command(self, library, *arguments):
        if library == "execnet":
            return [sys.executable, "-m", "pytest", *arguments]
        runner = self.write("run_pytest.py", "import pytest, sys\nsys.exit(pytest.main())\n")
        return [*pairing.command(runner), *PLUGIN, *arguments]

    def run(self, *arguments, library="execnet_c"):
        arguments = [*WITHOUT, "-rA", *map(str, arguments)]
        done = subprocess.run(
            self.command(library, *arguments),
            cwd=self.directory,
            env=self.environment(library),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=LIMIT,
        )
        return Result(done.returncode, done.stdout, self.log.read_text())

    def both(self, *arguments):
        """Ours, after comparing it with execnet's: what every test came to, the closing line, the exit status."""
        ours = self.run(*arguments)
        if pairing.name == pairing.DEFAULT:
            theirs = self.run(*arguments, library="execnet")
            assert ours.outcomes == theirs.outcomes, (ours.output, theirs.output)
            assert (ours.returncode, ours.counts) == (theirs.returncode, theirs.counts), (ours.output, theirs.output)
        return ours


@pytest.fixture
def suite(tmp_path):
    directory = tmp_path / "suite"
    directory.mkdir()
    return Suite(directory)


MIXED = """
import sys
import warnings

import pytest

@pytest.mark.parametrize("n", range(20))
def test_passes(n):
    pass

def test_is_as_in_execnet_workers():
    assert sys.argv == ["-c"]

def test_prints():
    print("said on stdout")
    print("said on stderr", file=sys.stderr)
    assert 1 + 1 == 3

def test_warns():
    warnings.warn("a warning of the worker's", UserWarning)

@pytest.fixture
def broken():
    raise OSError(7, "a fixture's")

def test_error(broken):
    pass

@pytest.mark.skip(reason="why not")
def test_skipped():
    pass

@pytest.mark.xfail
def test_xfails():
    raise KeyError("\\u20ac \\udc80 \\U0001f600")

@pytest.mark.xfail
def test_xpasses():
    pass
"""


def test_outcomes_output_and_warnings(suite):
    suite.write("test_mixed.py", MIXED)
    result = suite.both("-n", 2)
    assert result.returncode == 1
    assert result.counts == {"passed": 22, "failed": 1, "error": 1, "skipped": 1, "xfailed": 1, "xpassed": 1, "warning": 1}
    for text in ("said on stdout", "said on stderr", "assert (1 + 1) == 3", "a warning of the worker's", "a fixture's"):
        assert text in result.output, text
    assert set(result.workers) == {"gw0", "gw1"}


@pytest.mark.deep
@pytest.mark.any_core
@pytest.mark.parametrize("number", ["0", "1", "auto", "logical"])
def test_numbers_of_workers(suite, number):
    suite.write("test_mixed.py", MIXED.replace('["-c"]', "sys.argv"))
    result = suite.both("-n", number)
    assert result.counts["passed"] == 22
    if number.isdigit():
        assert len(result.workers) == max(int(number), 1)


GROUPS = """
import pytest

class TestOne:
    def test_a(self): pass
    def test_b(self): pass
    def test_c(self): pass

class TestTwo:
    def test_a(self): pass
    def test_b(self): pass
    def test_c(self): pass

@pytest.mark.xdist_group("g")
@pytest.mark.parametrize("n", range(5))
def test_group(n): pass
"""


@pytest.mark.deep
@pytest.mark.any_core
@pytest.mark.parametrize("mode", ["load", "loadscope", "loadfile", "loadgroup", "worksteal", "each", "no"])
def test_modes_of_distribution(suite, mode):
    for name in "abc":
        suite.write(f"test_{name}.py", GROUPS)
    result = suite.both("-n", 2, "--dist", mode)
    result.passed(passed=66 if mode == "each" else 33)
    together = {
        "loadfile": r"(.*)::.*",
        "loadscope": r"(.*::Test\w+)::.*",
    }
    if mode in together:
        places = {}
        for worker, tests in result.workers.items():
            for found in filter(None, [re.fullmatch(together[mode], test) for test in tests]):
                places.setdefault(found[1], set()).add(worker)
        assert places and all(len(workers) == 1 for workers in places.values()), places


@pytest.mark.deep
@pytest.mark.any_core
@pytest.mark.parametrize(
    "arguments",
    [
        ["-n", "4", "--maxprocesses", "2"],
        ["--dist", "load", "--tx", "2*popen"],
        ["--dist", "load", "--tx", "popen//id=one", "--tx", f"popen//python=env FROM_SPEC=1 {sys.executable}//id=two"],
        ["--dist", "load", "--tx", "popen//env:A=1//id=one", "--tx", "popen//nice=5//id=two"],
        ["-n", "2", "-d"],
        ["-n", "2", "--testrunuid", "one-run"],
        ["-n", "2", "-v"],
        ["-n", "2", "-q", "--durations=3"],
    ],
    ids=" ".join,
)
def test_ways_to_ask_for_workers(suite, arguments):
    suite.write("test_mixed.py", "import pytest, time\n@pytest.mark.parametrize('n', range(30))\ndef test(n): time.sleep(0.01)\n")
    result = suite.both(*arguments)
    result.passed(passed=30)
    assert len(result.workers) == 2


@pytest.mark.deep
def test_workers_through_another_gateway(suite):
    """With execnet the second one is refused: over there the main thread is taken."""
    suite.write("test_many.py", "import pytest\n@pytest.mark.parametrize('n', range(30))\ndef test(n): pass\n")
    workers = [argument for name in "ab" for argument in ("--tx", f"popen//via=between//id={name}")]
    result = suite.run("--dist", "load", "--px", "popen//id=between", *workers)
    result.passed(passed=30)
    assert len(result.workers) == 2


@pytest.mark.deep
@pytest.mark.skipif(pairing.name != pairing.DEFAULT, reason="hosts over ssh have a core of their own")
def test_hosts_that_get_the_tests_by_rsync(suite):
    there = Path(os.path.realpath(suite.directory.parent)) / "there"
    there.mkdir()
    suite.write(
        "pack/test_there.py",
        f"""
        import execnet, os, pytest

        @pytest.mark.parametrize("n", range(10))
        def test(n):
            assert __file__.startswith({str(there)!r}) and os.getcwd().startswith({str(there)!r})
            assert execnet.Channel.__module__.startswith("execnet_c")
        """,
    )
    with ssh_hosts.serving({"h1": sshd.Host(), "h2": sshd.Host()}) as server:
        keys = f"python={sys.executable}", f"chdir={there}/gw"
        specs = [server.spec(host, keys[0], keys[1] + host, f"id={host}") for host in ("h1", "h2")]
        hosts = [argument for spec in specs for argument in ("--tx", spec)]
        pack = suite.directory / "pack"
        result = suite.run("--dist", "load", "-W", "ignore", *hosts, f"--rsyncdir={pack}", pack)
    result.passed(passed=10)
    assert set(result.workers) == {"h1", "h2"}


# --- ends ---------------------------------------------------------------------------------------------------------------

CRASHES = """
import os, signal, pytest

@pytest.mark.parametrize("n", range(10))
def test_before(n): pass

def test_crash():
    {how}

@pytest.mark.parametrize("n", range(10))
def test_after(n): pass
"""


CAUSES = {
    "os._exit(3)": "ended with exit status 3",
    "os.kill(os.getpid(), signal.SIGKILL)": "was killed by SIGKILL",
    "os.abort()": "was killed by SIGABRT",
}


@pytest.mark.parametrize(
    "how, cause", [pytest.param(*both, marks=[pytest.mark.deep] * ("kill" not in both[0])) for both in CAUSES.items()]
)
def test_a_worker_that_crashes_is_replaced(suite, how, cause):
    suite.write("test_crash.py", CRASHES.format(how=how))
    result = suite.both("-n", 2)
    # The line that programs look for stays as it is; the cause stands below it.
    down = r"\[(gw[01])\] node down: Not properly terminated\n    gateway '\1': its worker "
    assert re.search(down + re.escape(cause), result.output), result.output
    assert (result.returncode, result.counts) == (1, {"passed": 20, "failed": 1}), result.output
    assert re.search(r"worker 'gw[01]' crashed while running .*test_crash", result.output)
    assert "replacing crashed worker" in result.output


ODD_TEXTS = """
import enum
import pathlib
import warnings

import pytest

class Word(str):
    def __str__(self):
        raise RuntimeError("not this way")

class Color(enum.Enum):
    RED = 1

class Number(enum.IntEnum):
    ONE = 1

class Share(float): pass

def test_passes(record_property):
    record_property("values", [Word("plain"), Color.RED, Number.ONE, Share(0.5), pathlib.Path("/x"), "caf\\udce9", True])
    record_property(Word("key"), {"caf\\udce9": (None, b"\\xff")})

def test_fails():
    print("caf\\udce9")
    raise ValueError("caf\\udce9")

@pytest.mark.skip(reason=Word("caf\\udce9"))
def test_skipped(): pass

def test_warns():
    warnings.warn("caf\\udce9")
"""

ODD_CONFTEST = CONFTEST + """
def pytest_runtest_logreport(report):
    if report.user_properties and "PYTEST_XDIST_WORKER" not in os.environ and report.when == "call":
        print("\\nPROPERTIES", report.user_properties)
"""


def test_reports_with_texts_that_cannot_be_sent_arrive_as_plain_ones(suite):
    suite.write("conftest.py", ODD_CONFTEST)
    suite.write("test_odd.py", ODD_TEXTS)
    suite.write(os.fsdecode(b"test_caf\xe9.py"), "def test_in_a_file_with_an_odd_name(): pass\n")
    result = suite.run("-n", 1, "-s", "-p", "no:unraisableexception")
    assert "INTERNALERROR" not in result.output
    assert (result.returncode, result.counts) == (1, {"passed": 3, "failed": 1, "skipped": 1, "warning": 1}), result.output
    values = ["plain", "Color.RED", 1, 0.5, "/x", "caf\\udce9", True]
    properties = [("values", values), ("key", {"caf\\udce9": (None, b"\xff")})]
    assert f"PROPERTIES {properties!r}".replace("(", "[").replace(")", "]") in result.output.replace("(", "[").replace(")", "]")
    assert "ValueError: caf\\udce9" in result.output


def test_no_worker_may_be_replaced(suite):
    suite.write("test_crash.py", CRASHES.format(how="os._exit(3)"))
    result = suite.run("-n", 2, "--max-worker-restart", 0)
    assert result.returncode != 0 and "worker restarting disabled" in result.output, result.output


def test_workers_that_cannot_start(suite):
    suite.write("test_one.py", "def test(): pass\n")
    result = suite.run("--dist", "load", "--tx", "popen//python=/no/such/python")
    assert result.returncode != 0
    assert "/no/such/python" in result.output and "No such file or directory" in result.output


@pytest.mark.deep
@pytest.mark.any_core
def test_a_conftest_that_fails_in_the_workers(suite):
    suite.write("sub/conftest.py", "import os\nif 'PYTEST_XDIST_WORKER' in os.environ: raise ValueError('only over there')\n")
    suite.write("sub/test_one.py", "def test(): pass\n")
    result = suite.run("-n", 2, "sub")
    assert result.returncode != 0 and "only over there" in result.output


@pytest.mark.deep
@pytest.mark.any_core
@pytest.mark.parametrize("arguments", [["-x"], ["--maxfail=3"]], ids=" ".join)
def test_stops_at_failures(suite, arguments):
    suite.write("test_many.py", "import pytest\n@pytest.mark.parametrize('n', range(300))\ndef test(n): assert n < 20\n")
    result = suite.run("-n", 2, *arguments)
    wanted = 1 if arguments == ["-x"] else 3
    assert result.returncode == 2 and f"stopping after {wanted} failures" in result.output, result.output
    assert wanted <= result.counts["failed"] < 250


@pytest.mark.deep
@pytest.mark.any_core
def test_pytest_exit_in_a_worker(suite):
    suite.write("test_exit.py", "import pytest\ndef test_a(): pass\ndef test_b(): pytest.exit('enough of this')\n")
    result = suite.both("-n", 1)
    assert (result.returncode, result.counts) == (2, {"passed": 1, "failed": 1}), result.output
    assert "test_b" in result.output and "keyboard-interrupt" in result.output


def test_an_internal_error_in_a_worker(suite):
    suite.write("sub/conftest.py", "def pytest_runtest_protocol(item): raise RuntimeError('a plugin of ours')\n")
    suite.write("sub/test_one.py", "def test(): pass\n")
    result = suite.both("-n", 1, "sub")
    assert "INTERNALERROR" in result.output and "a plugin of ours" in result.output


@pytest.mark.deep
def test_subprocesses_threads_and_forks_in_tests(suite):
    suite.write(
        "test_processes.py",
        """
        import os, subprocess, sys, threading

        def test_stdin_is_empty():
            assert sys.stdin.closed or os.read(0, 10) == b""

        def test_a_subprocess():
            assert subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True).stdout == "5\\n"

        def test_what_c_code_prints(capfd):
            os.write(1, b"from below\\n")
            assert capfd.readouterr().out == "from below\\n"

        def test_a_subprocess_that_prints_into_the_void():
            subprocess.run(["sh", "-c", "echo to nobody; echo to all >&2"], check=True)

        def test_main_thread():
            assert threading.current_thread() is threading.main_thread()

        def test_a_fork():
            pid = os.fork()
            if pid == 0:
                os._exit(5)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
        """,
    )
    suite.both("-n", 2, "-W", "ignore").passed(passed=6)


# --- at a terminal ------------------------------------------------------------------------------------------------------


def at_a_terminal(suite, *arguments):
    """pytest on a pty of its own."""
    environment = suite.environment("execnet_c")
    return Terminal(
        f"""
        os.chdir({str(suite.directory)!r})
        os.environ.update({environment!r})
        sys.path[:0], sys.argv = [""], ["pytest"]
        import pytest
        sys.exit(pytest.main({[*PLUGIN, *WITHOUT, *arguments]!r}))
        """
    )


def test_ctrl_c(suite):
    suite.write(
        "test_long.py",
        """
        import os, time, pytest
        @pytest.mark.parametrize("n", range(4))
        def test(n):
            open(f"started-{os.environ['PYTEST_XDIST_WORKER']}", "w").close()
            time.sleep(60)
        """,
    )
    with at_a_terminal(suite, "-n", "2") as terminal:
        assert wait_until(lambda: len(list(suite.directory.glob("started-*"))) == 2)
        start = time.monotonic()
        terminal.type(CTRL_C)
        terminal.expect("KeyboardInterrupt")
        assert terminal.status() == 2
        assert time.monotonic() - start < 20


@pytest.mark.deep
def test_looponfail(suite):
    test = suite.write("sub/test_loop.py", "def test(): assert 0, 'the first time'\n")
    with at_a_terminal(suite, "-f", "sub") as terminal:
        terminal.expect("the first time")
        terminal.expect("waiting for changes")
        time.sleep(1.1)  # it looks at whole seconds
        test.write_text("def test(): pass  # and now it does\n")
        terminal.expect("1 passed")
        terminal.expect("waiting for changes")
        terminal.type(CTRL_C)
        terminal.status()


def test_a_controller_that_is_killed_leaves_nothing(suite):
    suite.write("test_long.py", "import time, pytest\n@pytest.mark.parametrize('n', range(4))\ndef test(n): time.sleep(60)\n")
    environment = suite.environment("execnet_c")
    mark = environment[MARK] = os.urandom(16).hex()
    command = suite.command("execnet_c", *WITHOUT, "-n", "2")
    with subprocess.Popen(command, cwd=suite.directory, env=environment, stdout=subprocess.DEVNULL) as process:
        assert wait_until(lambda: len(living(mark)) >= 3)
        process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: is_gone(process.pid) and not living(mark))


# --- pytest-cov ---------------------------------------------------------------------------------------------------------


@pytest.mark.deep
@pytest.mark.any_core
def test_coverage_of_workers(suite):
    """pytest-cov asks each busy worker for its facts."""
    suite.write("pack/__init__.py", "def f(x):\n    if x:\n        return 1\n    return 2\n\ndef g():\n    return 3\n")
    suite.write(
        "test_pack.py",
        "import pack, pytest\n@pytest.mark.parametrize('n', range(10))\ndef test(n): assert pack.f(n % 2) in (1, 2)\n",
    )
    result = suite.both("-n", 2, "--cov=pack", "--cov-report=term-missing")
    result.passed(passed=10)
    assert re.search(r"pack/__init__.py +6 +1 +83% +7", result.output), result.output
