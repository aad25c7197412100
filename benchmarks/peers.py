"""The peers: the libraries that are compared with each other, behind a common interface.

CONVERSATIONS: start(task) starts another interpreter that runs that function of tasks.py; the peer is then the near end of
the line to it. CALLS: start() starts a pool whose function returns its argument; send() calls it, receive() returns the
result. stop() ends both kinds, whatever the task does. SERIALIZERS have dumps() and loads(), TAGGERS tag_sents(). The
constructor of a peer imports its library; it raises ImportError or `Missing` if that is not installed.
"""

import importlib
import importlib.util
import inspect
import os
import shutil
import sys
import tempfile

import far
from base import Missing, version_of

OURS = "execnet_c"

# Peers that take long to start, or that few people have installed. In a shorter run they take part only if --peers names
# them.
HEAVY = {"multiprocessing.Pool", "concurrent.futures", "fastnltk", "joblib", "pyzmq", "mpi4py", "mitogen"}

_GATEWAY_LINE = """
class line:
    receive, send = channel.receive, channel.send
    receive_bytes, send_bytes = receive, send
"""


class Gateways:
    """Gateways of execnet or of execnet_c: the two have the same interface."""

    library = None

    def __init__(self, setting):
        self.module = importlib.import_module(self.library)
        self.group = self.module.Group()  # loads the rest of the package
        self.spec = "popen"

    def remote_exec(self, task, gateway=None):
        """Start a task, on a new gateway if none is given; returns its channel."""
        text = f"{_GATEWAY_LINE}\n{inspect.getsource(task)}\n{task.__name__}(line)"
        return (gateway or self.group.makegateway(self.spec)).remote_exec(text)

    def start(self, task):
        self.use(self.remote_exec(task))

    def use(self, channel):
        self.channel = channel
        self.send, self.receive = channel.send, channel.receive
        self.send_bytes, self.receive_bytes = channel.send, channel.receive

    def start_many(self, number, task):
        """Start so many gateways at once, with a task on each. Waits for a first item from each; returns the channels."""
        self.group = self.module.Group([self.spec] * number)
        channels = [self.remote_exec(task, gateway) for gateway in self.group]
        for channel in channels:
            assert channel.receive() == 1
        return channels

    def stop(self):
        self.group.terminate(timeout=5.0)

    def version(self):
        return version_of(self.library)


class ExecnetC(Gateways):
    library = OURS


class Execnet(Gateways):
    library = "execnet"


class ExecnetCSsh(ExecnetC):
    def __init__(self, setting):
        super().__init__(setting)
        self.spec = setting.spec()


class ExecnetSsh(Execnet):
    def __init__(self, setting):
        super().__init__(setting)
        self.spec = setting.spec()


class _Standard:
    """A peer of the standard library."""

    def version(self):
        return sys.version.split()[0]


class _Near(far.Line):
    """The near end of a line, which start() makes."""

    def __init__(self, setting):
        import multiprocessing

        self.context = multiprocessing.get_context("spawn")

    def be(self, line):
        super().__init__(line.receive, line.send, line.receive_bytes, line.send_bytes)


class Pipe(_Standard, _Near):
    """multiprocessing.Pipe, with a process of a new interpreter at its other end."""

    def __init__(self, setting):
        super().__init__(setting)
        self._started = []

    def start(self, task):
        here, there = self.context.Pipe()
        process = self.context.Process(target=far.serve_pipe, args=(task.__name__, there))
        process.start()
        there.close()
        self._started.append((process, here))
        self.be(far.of_pipe(here))

    def start_many(self, number, task):
        for _ in range(number):
            self.start(task)
        for _, here in self._started:
            assert here.recv() == 1

    def stop(self):
        for _, here in self._started:
            here.close()
        for process, _ in self._started:
            process.join(5.0)
            process.kill()
            process.join()
        self._started = []


class Zmq(_Near):
    """Two sockets of pyzmq, of the kind PAIR, over a Unix socket; multiprocessing starts the process at the other end."""

    def __init__(self, setting):
        super().__init__(setting)
        import zmq

        self._zmq = zmq

    def start(self, task):
        self._directory = tempfile.mkdtemp()
        self._socket = self._zmq.Context.instance().socket(self._zmq.PAIR)
        address = f"ipc://{self._directory}/socket"
        self._socket.bind(address)
        self._process = self.context.Process(target=far.serve_zmq, args=(task.__name__, address))
        self._process.start()
        self.be(far.of_zmq(self._socket))

    def stop(self):
        self.send(None)
        self._process.join(5.0)
        self._process.kill()
        self._process.join()
        self._socket.close(0)
        shutil.rmtree(self._directory)

    def version(self):
        return version_of("pyzmq")


def mpiexec():
    """The path of mpiexec, or None. The wheel of mpich installs it beside Python."""
    return shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))


class Mpi(far.Line):
    """Two ranks of MPI, which share memory; rank 0 is this process, rank 1 runs the tasks."""

    @staticmethod
    def launched(python, *words):
        """The command line of a measurement. mpi4py's runner ends both ranks if one fails."""
        start = [mpiexec(), "-n", "2"] if mpiexec() else []
        return [*start, python, "-m", "mpi4py", *words]

    def __init__(self, setting):
        try:
            from mpi4py import MPI
        except RuntimeError as error:  # mpi4py has not found libmpi
            raise Missing(str(error).splitlines()[0]) from error
        self._comm = MPI.COMM_WORLD
        if mpiexec() is None:
            raise Missing("no mpiexec: pip install mpich")
        if self._comm.rank == 1:
            far.serve_mpi(self._comm)
            sys.exit()

    def start(self, task):
        self._comm.send(task.__name__, dest=1, tag=2)
        super().__init__(*vars(far.of_mpi(self._comm, 1)).values())

    def stop(self):
        self.send(None)

    def leave(self):
        self._comm.send(None, dest=1, tag=2)

    def version(self):
        from mpi4py import MPI

        return f"{version_of('mpi4py')} on {' '.join(MPI.get_vendor()[:1])} {'.'.join(map(str, MPI.get_vendor()[1]))}"


class Mitogen(far.Line):
    """A local context of mitogen."""

    def __init__(self, setting):
        import mitogen.core
        import mitogen.master

        self._mitogen = mitogen

    def start(self, task):
        import far_mitogen

        self._broker = self._mitogen.master.Broker()
        router = self._mitogen.master.Router(self._broker)
        context = router.local(python_path=sys.executable)
        receiver = self._mitogen.core.Receiver(router)
        self._call = context.call_async(far_mitogen.serve, task.__name__, receiver.to_sender())
        sender = receiver.get().unpickle()
        super().__init__(*vars(far_mitogen.line_of(receiver, sender)).values())

    def stop(self):
        self.send(None)
        self._call.get(timeout=5.0)
        self._broker.shutdown()
        self._broker.join()

    def version(self):
        return version_of("mitogen")


class Pool(_Standard):
    """multiprocessing.Pool, of one new interpreter; each call returns its argument."""

    def __init__(self, setting):
        import multiprocessing

        self._context = multiprocessing.get_context("spawn")

    def start(self, task):
        self._pool = self._context.Pool(1)

    def send(self, item):
        self._result = self._pool.apply_async(far.same, (item,))

    def receive(self):
        return self._result.get()

    def stop(self):
        self._pool.terminate()
        self._pool.join()


class Futures(_Standard):
    """As Pool, with a ProcessPoolExecutor."""

    def __init__(self, setting):
        import concurrent.futures
        import multiprocessing

        self._make = lambda: concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def start(self, task):
        self._executor = self._make()

    def send(self, item):
        self._future = self._executor.submit(far.same, item)

    def receive(self):
        return self._future.result()

    def stop(self):
        self._executor.shutdown()


class Joblib:
    """As Pool, with joblib. It has two processes, because with n_jobs=1 joblib calls the function in this process."""

    def __init__(self, setting):
        self._joblib = importlib.import_module("joblib")

    def start(self, task):
        self._parallel = self._joblib.Parallel(n_jobs=2).__enter__()

    def send(self, item):
        self._call = self._joblib.delayed(far.same)(item)

    def receive(self):
        return self._parallel([self._call])[0]

    def stop(self):
        self._parallel.__exit__(None, None, None)
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown()

    def version(self):
        return version_of("joblib")


class _Functions:
    def __init__(self, setting):
        module = importlib.import_module(self.library)
        self.dumps, self.loads = module.dumps, module.loads

    def version(self):
        return version_of(self.library)


class OurSerializer(_Functions):
    library = OURS


class ExecnetSerializer(_Functions):
    library = "execnet"


class Pickle(_Standard):
    """pickle, with protocol 5."""

    def __init__(self, setting):
        import pickle

        self.dumps, self.loads = lambda item: pickle.dumps(item, 5), pickle.loads


class Marshal(_Standard):
    def __init__(self, setting):
        import marshal

        self.dumps, self.loads = marshal.dumps, marshal.loads


class Msgpack:
    """msgpack does not tell lists from tuples: with use_list=False it loads all of them as tuples."""

    def __init__(self, setting):
        import msgpack

        self.dumps = msgpack.packb
        self.loads = lambda data: msgpack.unpackb(data, use_list=False, strict_map_key=False)

    def version(self):
        return version_of("msgpack")


class OurTagger:
    """start() of each tagger gets a tagger of NLTK, whose weights it takes. exact: its tags must be those of NLTK.

    No class here imports nltk, because corpus.find_data() must be called before that.
    """

    exact = True

    def __init__(self, setting):
        from execnet_c.tagging import PerceptronTagger

        self._make = PerceptronTagger.from_nltk

    def start(self, tagger):
        self.tagger = self._make(tagger)
        self.tag_sents = self.tagger.tag_sents

    def version(self):
        return version_of(OURS)


class NltkTagger:
    exact = True

    def __init__(self, setting):
        pass

    def start(self, tagger):
        self.tag_sents = tagger.tag_sents

    def version(self):
        return version_of("nltk")


class FastNltkTagger:
    """It is given the weights here. Otherwise it would need them unzipped, and would keep a copy in the temporary directory
    that all users share."""

    exact = False

    def __init__(self, setting):
        if importlib.util.find_spec("fastnltk") is None:
            raise Missing("No module named 'fastnltk'")

    def start(self, tagger):
        self._tagger = importlib.import_module("fastnltk._rust").PerceptronTagger()
        self._tagger.load(tagger.model.weights, tagger.tagdict, sorted(tagger.model.classes))
        self.tag_sents = self._tagger.tag_sents

    def version(self):
        return version_of("fastnltk")


GATEWAYS = {OURS: ExecnetC, "execnet": Execnet}

CONVERSATIONS = {**GATEWAYS, "multiprocessing.Pipe": Pipe, "pyzmq": Zmq, "mpi4py": Mpi, "mitogen": Mitogen}

CALLS = {"multiprocessing.Pool": Pool, "concurrent.futures": Futures, "joblib": Joblib}

SSH_GATEWAYS = {OURS: ExecnetCSsh, "execnet": ExecnetSsh}

TAGGERS = {OURS: OurTagger, "NLTK": NltkTagger, "fastnltk": FastNltkTagger}

SERIALIZERS = {
    OURS: OurSerializer,
    "execnet": ExecnetSerializer,
    "pickle 5": Pickle,
    "marshal": Marshal,
    "msgpack": Msgpack,
}
