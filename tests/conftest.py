"""For all tests: the library under test, which tests run, and a check that a test leaves nothing behind.

Tests with the fixture `lib` run against execnet_c and against execnet: what both do is the contract. A test marked `ours`
is about what execnet_c does better, on purpose, and runs against execnet_c only.

execnet_c has two cores, and a run is over one pairing of them (see pairing.py). Tests that do not depend on the cores, and
those against execnet, run over the default pairing only; tests about one end only, over C-C and Python-Python.

pytest without options runs every test. The commands of the Makefile leave some out by --depth: `make test` leaves out what
is_deep() says is deep; `make check-deep` runs just this. `make quick` takes a few tests of each file.
"""

import pairing  # isort: skip (before anything takes a core)

import contextlib
import gc
import importlib
import os
import pathlib
import re
import signal
import threading

import pytest
from masters import TIMEOUT, sleep_at_a_pipe, stat_of, wait_until

LIBS = ["execnet_c", "execnet"] if pairing.name == pairing.DEFAULT else ["execnet_c"]


def files(*names):
    """Files of tests, by how their names begin."""
    return tuple(f"test_{name}" for name in names)


# Files whose tests are all about one process and name their core themselves, or about programs around the package.
ANY_CORE = files("serializer", "examples", "makefile", "users", "rings", "tagging")

# Files about what crosses the wire between two cores...
WIRE = files("callback", "channel", "coercion", "core_frames", "flow", "gateway", "interrupt", "pairing", "pickled", "pieces")

# ... and about what else may differ if the two ends have different cores: C-Python and Python-C run only these two kinds.
# The others are about one end at a time; C-C and Python-Python test each core at both ends.
BOTH_ENDS = WIRE + files(
    *("aio", "alive", "deaths", "debug", "errors", "execmodel", "pool_pipe", "pool_deaths", "stderr", "via", "watch", "with")
)

# Files about what each core does in its own way. The others are about Python code that both cores share.
CORES = BOTH_ENDS + files(
    *("bounds", "closed_fds", "conformance", "cut", "fork", "interpreters", "no_fds", "no_memory", "pump", "signals", "terminal"),
    *("threads", "free_threaded"),
)

# The files that `make test` runs over a pairing. All others that run over it are deep.
NOT_DEEP = {"C-C": files(""), "Python-Python": CORES, "C-Python": WIRE, "Python-C": WIRE}[pairing.name]

# Files of long tests: `make quick` takes one test of each.
LONG = files(
    *("examples", "leaks", "limits", "nltk", "pytest_plugin", "serializer_twins", "ssh_tagging", "tagging_answers", "xdist")
)

TESTS = sorted(pathlib.Path(__file__).parent.glob("test_*.py"))
DEPTHS = ["all", "test", "deep", "quick"]
QUICK = 4  # tests of a file that `make quick` takes over C-C; over other pairings it takes half of them
SETTLE = 10.0  # seconds that a test's processes and threads may take to end after it


def pytest_addoption(parser):
    parser.addoption("--part", metavar="N/OF", help="every OF-th file of tests, from the Nth on (1/2, 2/2)")
    parser.addoption("--depth", choices=DEPTHS, default="all", help="which tests: of `make test`, check-deep or quick")


def pytest_configure(config):
    # A shell that starts pytest in the background, or nohup, has signals ignored, also in the programs that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for marker in (
        "ours: execnet_c does better than execnet here, on purpose",
        "deep: takes long, or is about what seldom changes; `make check-deep` runs it, and `make test` does not",
        "any_core: the same whatever the cores are; run over the default pairing only",
        "not_under(sanitizers, why): not with the builds of sanitized.sh for these",
        'c_interface(end): of the C core itself; skipped where neither end has it, or not the end named ("near", "far")',
    ):
        config.addinivalue_line("markers", marker)


def pytest_report_header():
    here = getattr(pairing.module, "__file__", "built in")
    return f"execnet_c: pairing {pairing.name}: {pairing.near} core here ({here}), {pairing.far} core at the far ends"


def is_left_out(path, config):
    """Whether no test of this file runs in this part and over this pairing."""
    part, of = map(int, (config.getoption("part") or "1/1").split("/"))
    if path in TESTS and TESTS.index(path) % of != part - 1:
        return True
    if pairing.near != pairing.far and not path.name.startswith(BOTH_ENDS):
        return True
    if config.getoption("depth") in ("test", "quick") and not path.name.startswith(NOT_DEEP):
        return True
    return pairing.name != pairing.DEFAULT and path.name.startswith(ANY_CORE)


def pytest_ignore_collect(collection_path, config):
    return True if collection_path.suffix == ".py" and is_left_out(collection_path, config) else None


def is_deep(item):
    """Whether only `make check-deep` runs a test: one that is marked so, one over another pairing than `make test` runs its
    file, one against execnet, which changes only if the test does, and one with a far end that is deep."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if params.get("lib") == "execnet" or any(getattr(value, "deep", False) for value in params.values()):
        return True
    return not item.path.name.startswith(NOT_DEEP) or item.get_closest_marker("deep") is not None


def a_few_of_each_file(items):
    """From each file, functions at even distances, each with its first parameters."""
    files = {}
    for item in items:
        files.setdefault(item.path, {}).setdefault(item.function, item)
    few = set()
    for path, firsts in files.items():
        n = 1 if path.name.startswith(LONG) else QUICK if pairing.name == pairing.DEFAULT else QUICK // 2
        firsts = list(firsts.values())
        few |= {firsts[len(firsts) * i // n] for i in range(n)}
    return few


def pytest_collection_modifyitems(config, items):
    depth = config.getoption("depth")
    kept, left_out = [], []
    for item in items:
        one_core = item.get_closest_marker("any_core") and pairing.name != pairing.DEFAULT
        not_so_deep = depth != "all" and is_deep(item) != (depth == "deep")
        (left_out if one_core or not_so_deep or is_left_out(item.path, config) else kept).append(item)
    if depth == "quick":
        few = a_few_of_each_file(kept)
        left_out += [item for item in kept if item not in few]
        kept = [item for item in kept if item in few]
    for item in kept:
        marker = item.get_closest_marker("not_under")
        if marker and os.environ.get("EXECNET_C_TEST_SANITIZER") in marker.args[0].split():
            item.add_marker(pytest.mark.skip(reason=f"not under a sanitizer: {marker.args[1]}"))
        marker = item.get_closest_marker("c_interface")
        if marker:
            ends = {"near": pairing.near, "far": pairing.far}
            if "C" not in [ends[end] for end in marker.args or ends]:
                where = f"not at the {marker.args[0]} end" if marker.args else "at neither end"
                item.add_marker(pytest.mark.skip(reason=f"of the C core, which is {where} of {pairing.name}"))
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_sessionfinish(session, exitstatus):
    # A part may have no test of that depth.
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.getoption("depth") != "all":
        session.exitstatus = pytest.ExitCode.OK


def pytest_generate_tests(metafunc):
    if "lib" in metafunc.fixturenames:
        only_ours = metafunc.definition.get_closest_marker("ours") is not None
        metafunc.parametrize("lib", LIBS[:1] if only_ours else LIBS, indirect=True)


@pytest.fixture
def lib(request):
    """The library under test, imported."""
    if request.param == "execnet":
        return pytest.importorskip("execnet")
    return importlib.import_module(request.param)


@pytest.fixture
def group(lib):
    group = lib.Group()
    yield group
    group.terminate(timeout=2.0)


@pytest.fixture
def gw(group):
    return group.makegateway("popen")


@pytest.fixture(scope="session")
def ssh_server():
    """The server with all the hosts of ssh_hosts.py."""
    import ssh_hosts

    with ssh_hosts.running() as server:
        yield server


def stderr_has(size):
    """Wait until pytest's file for fd 2 holds so many bytes. Reading it through capfd instead would lose what comes between
    its reading and its emptying of the file."""
    return wait_until(lambda: os.fstat(2).st_size >= size)


def plain_repr(gateway):
    """repr() of a gateway as with execnet, which does not say how the frames travel."""
    return re.sub(", (ring|pipe)>$", ">", repr(gateway))


def children_of(pid):
    """Process ids of the children of `pid`, also of those that are dead but not yet reaped."""
    stats = {int(name): stat_of(name) for name in os.listdir("/proc") if name.isdigit()}
    return {child for child, stat in stats.items() if stat and int(stat[1]) == pid}


def has_children():
    """Whether this process has any; children_of() takes long to find none."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


class Footprint:
    """What this process holds of the system right now."""

    def __init__(self):
        self.fds = {}
        for fd in os.listdir("/proc/self/fd"):
            try:
                self.fds[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                pass  # the fd of the listing itself
        self.tasks = set(os.listdir("/proc/self/task"))
        self.threads = set(threading.enumerate())
        self.children = children_of(os.getpid()) if has_children() else set()

    def beyond(self, before, floor):
        """What is left behind: more than there was before the test, and more than the library always keeps (`floor`)."""
        more = []
        if len(self.fds) > max(len(before.fds), len(floor.fds)):
            more.append(f"fds {sorted(set(self.fds.items()) - set(before.fds.items()))}")
        if len(self.tasks) > max(len(before.tasks), len(floor.tasks)):
            more.append(f"threads of the process {sorted(self.tasks - before.tasks)}")
        if self.threads - before.threads - floor.threads:
            more.append(f"threads {sorted(map(repr, self.threads - before.threads))}")
        if self.children - before.children:
            more.append(f"children {sorted(self.children - before.children)}")
        return more


@pytest.fixture(scope="session")
def floor():
    """The footprint of execnet_c at rest: its I/O thread, its fds and those of the main thread.

    It may keep them as long as a gateway exists, even one that has ended; pytest keeps some alive.
    """
    first = threading.Thread(target=int)  # a thread sanitizer starts a thread of its own beside it: have that before counting
    first.start()
    first.join()
    with contextlib.suppress(ImportError):
        importlib.import_module("tqdm").tqdm.get_lock()  # from Python 3.14 on that starts a process, which stays
    start = Footprint()
    try:
        library = importlib.import_module("execnet_c")
        group = library.Group()
    except (ImportError, AttributeError):
        return start  # the tests that need it fail by themselves
    sleep_at_a_pipe(library)
    gw = group.makegateway("popen")
    gw.remote_exec("channel.send(1)").receive(TIMEOUT)
    group.terminate(timeout=5.0)
    wait_until(lambda: Footprint().children == start.children, SETTLE)
    rest = Footprint()
    assert not gw.hasreceiver()
    assert len(rest.tasks) <= len(start.tasks) + 1, "more than one thread is left at rest"
    assert rest.threads == start.threads, "a Python thread is left at rest"
    assert rest.children == start.children, "a child is left at rest"
    return rest


@pytest.fixture(autouse=True)
def leaves_nothing(floor, request):
    """Fail a test after which there are more fds, threads or children than before it.

    Tests against execnet do not fail: it leaves zombies, for example.
    """
    before = Footprint()
    yield
    more = []

    def is_clean():
        more[:] = Footprint().beyond(before, floor)
        if more:
            gc.collect()
        return not more

    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("lib") == "execnet":
        wait_until(is_clean, 0.2)
        return
    assert wait_until(is_clean, SETTLE), "left behind: " + "; ".join(more)
