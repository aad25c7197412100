"""What is measured against each other, behind one interface.

A `Conversation` starts another interpreter that runs one of `tasks`, and exchanges items with it. A `Serializer` turns
items into bytes and back. Constructing one imports its library: ImportError says that it is not installed. `stop` ends
a conversation, whatever has become of the task.
"""

import importlib
import inspect
import multiprocessing
import pickle
import subprocess
import sys

import tasks


class Gateway:
    """A popen gateway of execnet or of execnet_c: the two have the same interface."""

    def __init__(self, library):
        self._library = importlib.import_module(library)
        self._group = self._library.Group()  # loads the rest of the package

    def start(self, task):
        text = f"{inspect.getsource(task)}\n{task.__name__}(channel.receive, channel.send)"
        channel = self._group.makegateway("popen").remote_exec(text)
        self.send, self.receive = channel.send, channel.receive

    def stop(self):
        self._group.terminate(timeout=5.0)

    def version(self):
        return self._library.__version__


class Pipe:
    """The standard library's own: a process with a fresh interpreter at the other end of multiprocessing.Pipe."""

    def __init__(self):
        self._context = multiprocessing.get_context("spawn")

    def start(self, task):
        here, there = self._context.Pipe()
        self._process = self._context.Process(target=_run, args=(task.__name__, there))
        self._process.start()
        there.close()
        self._here = here
        self.send, self.receive = here.send, here.recv

    def stop(self):
        self._here.close()
        self._process.join(5.0)
        self._process.kill()
        self._process.join()

    def version(self):
        return sys.version.split()[0]


def _run(name, connection):
    try:
        getattr(tasks, name)(connection.recv, connection.send)
    except EOFError:
        pass


class BareInterpreter:
    """`python -c pass`: what any start of another interpreter costs at least."""

    def start(self, task):
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    def receive(self):
        return 1

    def stop(self):
        pass

    def version(self):
        return sys.version.split()[0]


class Functions:
    """The serializer of execnet or of execnet_c."""

    def __init__(self, library):
        self._library = importlib.import_module(library)
        self.dumps, self.loads = self._library.dumps, self._library.loads

    def version(self):
        return self._library.__version__


class Pickle:
    """The standard library's pickle, with protocol 5."""

    loads = staticmethod(pickle.loads)

    def dumps(self, item):
        return pickle.dumps(item, 5)

    def version(self):
        return sys.version.split()[0]


OURS = "execnet_c"

CONVERSATIONS = {
    OURS: lambda: Gateway("execnet_c"),
    "execnet": lambda: Gateway("execnet"),
    "multiprocessing.Pipe": Pipe,
}

STARTS = {**CONVERSATIONS, "python -c pass": BareInterpreter}

SERIALIZERS = {
    OURS: lambda: Functions("execnet_c"),
    "execnet": lambda: Functions("execnet"),
    "pickle 5": Pickle,
}
