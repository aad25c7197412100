"""Far ends over ssh: the command line, and how many connections to one host log in at once.

The far end runs one line for /bin/sh. The user's login shell may be any other: the line is quoted for all of them, and has
no newline, because csh takes none inside quotes. The shell waits for the worker and reports its exit status. Without it a
worker that was killed would look like a failure of ssh itself: both are status 255.
"""

import shlex
from os import getpid

from ..far.text import LINE, OLDEST
from ..models.native import allocate_lock

AT_ONCE = 8  # below sshd's default of 10 connections that have not logged in yet (MaxStartups 10:30:100)
TOO_OLD = 93  # exit status of a Python that is too old; neither Python nor a shell uses it
TRIED = f"python (if it is {OLDEST[0]}.{OLDEST[1]} or newer), then python3"
EXITED_255 = "execnet_c: the worker exited with status 255"

# Options of the ssh client that take an argument.
_WITH_ARGUMENT = "BDEFIJLOPQRSWbceilmopw"

_ANY_PYTHON = (
    f"if command -v python>/dev/null;"
    f'then python%s -c "import sys;sys.version_info<{OLDEST}and sys.exit({TOO_OLD});$L";s=$?;'
    f"else s={TOO_OLD};fi;"
    f'if [ $s = {TOO_OLD} ];then python3%s -c "$L";s=$?;fi;'
)
_THIS_PYTHON = '(%s%s -c "$L");s=$?;'
_REPORT = f"[ $s = 255 ]&&>&2 echo {EXITED_255};exit $s"


def argv_of(spec, keepalive):
    """The command line (a list of str) for an XSpec with ssh= or vagrant_ssh=. keepalive: the seconds for which the host
    may be silent, 0 for ever.

    Raises ValueError for a spec that names no host, or whose text no shell could split.
    """
    if spec.ssh:
        options, host = _words(spec)
        argv, hosts = ["ssh"], [host]
    elif spec.vagrant_ssh is True or spec.vagrant_ssh[:1] == "-":
        raise ValueError(f"spec {str(spec)!r}: vagrant_ssh needs a machine, as in vagrant_ssh=default")
    else:  # vagrant puts what follows `--` behind its own options and the host's name
        argv, options, hosts = ["vagrant", "ssh", spec.vagrant_ssh, "--"], [], []
    if spec.ssh_config:
        argv += ["-F", spec.ssh_config]
    argv += options
    if keepalive:  # behind the user's own options: of two values ssh takes the first
        interval = max(int(keepalive // 3), 1)
        count = max(int(keepalive / interval) - 1, 1)
        argv += ["-o", f"ServerAliveInterval={interval}", "-o", f"ServerAliveCountMax={count}"]
        if spec.keepalive is not None:  # the user wants to know: at a lower level ssh does not say that the host is silent
            argv += ["-o", "LogLevel=INFO"]
    return [*argv, *hosts, "exec /bin/sh -c " + _quoted(_script(spec))]


def _quoted(text):
    """`text` as one word for any login shell: inside single quotes ! is special for csh, and backslash for fish."""
    return shlex.quote(text).replace("\\", r"'\\'").replace("!", r"'\!'")


def host_of(spec):
    """The host of an ssh gateway as the spec names it, None for a local one."""
    if spec.vagrant_ssh and not spec.ssh:
        return spec.vagrant_ssh
    try:
        return _words(spec)[1] if spec.ssh else None
    except ValueError:  # the program has put its own command line in the place of ours, see gateway_io.py
        return spec.ssh


def _words(spec):
    """(options, host) of ssh=. As with ssh itself, options may stand on both sides of the host."""
    try:
        words = [] if spec.ssh is True else shlex.split(spec.ssh)
    except ValueError as exc:
        raise ValueError(f"spec {str(spec)!r}: ssh= cannot be split into words: {exc}") from None
    options, hosts = [], []
    argument = False  # whether the next word is the argument of the last one
    for word in words:
        if argument or word.startswith("-"):
            letter = None if argument else next((c for c in word[1:] if c in _WITH_ARGUMENT), None)
            argument = letter is not None and word.index(letter, 1) == len(word) - 1
            options += [word] if word != "--" else []
        else:
            hosts.append(word)
    if argument or len(hosts) != 1:
        raise ValueError(
            f"spec {str(spec)!r}: ssh needs one host, and options if need be, as in ssh=user@host or ssh=-p 2222 host; "
            f"what is to stand in front of Python over there is python='s, as in python=nice python3"
        )
    return options, hosts[0]


def _script(spec):
    options = " -u -B" if spec.dont_write_bytecode else " -u"
    if spec.python is True or spec.python == "":
        raise ValueError(f"spec {str(spec)!r}: python needs a command, as in python=python3.11")
    run = _THIS_PYTHON % (spec.python, options) if spec.python else _ANY_PYTHON % (options, options)
    return f"L='{LINE}';{run}{_REPORT}"


class Ticket:
    """A place in the line of those that log in to `host`, of which AT_ONCE may do so at a time. `start()` is called by the
    constructor, or by the thread whose leave() makes room."""

    _hosts = {}  # (process id, host): the tickets in order; the first AT_ONCE of them log in; under _lock
    _lock = allocate_lock()

    def __init__(self, host, start):
        self._start = start
        self._error = None
        self._started = allocate_lock()  # held until start() has returned
        self._started.acquire()
        with self._lock:
            self._queue = self._hosts.setdefault((getpid(), host), [])
            self._queue.append(self)
            self._called = len(self._queue) <= AT_ONCE
        if self._called:
            self._go()

    def _go(self):
        try:
            self._start()
        except Exception as exc:
            self._error = exc
        except BaseException:  # Ctrl-C for this thread; another one may wait for this ticket
            self._error = OSError("interrupted while it was started")
            raise
        finally:
            self._started.release()

    def wait(self):
        """Wait until start() has returned. Raises what it raised."""
        with self._started:
            if self._error is not None:
                raise self._error

    def leave(self):
        """Make room: the gateway is connected, has failed or was given up. start() is not called any more. Calling this
        again does nothing."""
        next = None
        with self._lock:
            if self in self._queue:
                self._queue.remove(self)
                for ticket in self._queue[:AT_ONCE]:
                    if not ticket._called:
                        ticket._called = True
                        next = ticket
                        break
        if next is not None:
            next._go()
        if self._called:  # another thread may still be in start(): wait for it
            with self._started:
                pass
