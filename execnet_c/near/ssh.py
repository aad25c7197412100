"""Over ssh: the command line, and how many connections to one host are on their way at once.

What runs over there is a line for /bin/sh, whatever the user's login shell is; so it is quoted for all of them, and has
no newline, which csh takes within no quotes. A shell stays behind the worker: a worker that was killed, and ssh's own
failures, would both look like status 255.
"""

import shlex
from os import getpid

from ..far.text import LINE, OLDEST
from ..models.native import allocate_lock

AT_ONCE = 8  # below sshd's default of 10 connections that have not logged in yet (MaxStartups 10:30:100)
TOO_OLD = 93  # exit status: any that neither Python nor a shell uses
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
    """The command line (a list of str) for an XSpec with ssh= or vagrant_ssh=. keepalive: seconds of silence that are borne, 0 for any.

    Raises ValueError for a spec that names no host, or whose text no shell could split.
    """
    if spec.ssh:
        options, host = _words(spec)
        argv, hosts = ["ssh"], [host]
    elif spec.vagrant_ssh is True or spec.vagrant_ssh[:1] == "-":
        raise ValueError(f"spec {str(spec)!r}: vagrant_ssh needs a machine, as in vagrant_ssh=default")
    else:  # what follows the -- stands behind its own options and the host's name
        argv, options, hosts = ["vagrant", "ssh", spec.vagrant_ssh, "--"], [], []
    if spec.ssh_config:
        argv += ["-F", spec.ssh_config]
    argv += options
    if keepalive:  # behind the user's own options: the first one counts
        interval = max(int(keepalive // 3), 1)
        count = max(int(keepalive / interval) - 1, 1)
        argv += ["-o", f"ServerAliveInterval={interval}", "-o", f"ServerAliveCountMax={count}"]
        if spec.keepalive is not None:  # who asks to be told is told: at a lower level ssh keeps silent about silence
            argv += ["-o", "LogLevel=INFO"]
    return [*argv, *hosts, "exec /bin/sh -c " + _quoted(_script(spec))]


def _quoted(text):
    """One word, whatever login shell reads it: csh looks for ! and fish for backslashes within single quotes, too."""
    return shlex.quote(text).replace("\\", r"'\\'").replace("!", r"'\!'")


def host_of(spec):
    """The host of an ssh gateway as the spec names it, None for a local one."""
    if spec.vagrant_ssh and not spec.ssh:
        return spec.vagrant_ssh
    try:
        return _words(spec)[1] if spec.ssh else None
    except ValueError:  # a program's own command line may know what to do with it
        return spec.ssh


def _words(spec):
    """(options, host) of ssh=. As with ssh itself, options may stand on both sides of the host."""
    try:
        words = [] if spec.ssh is True else shlex.split(spec.ssh)
    except ValueError as exc:
        raise ValueError(f"spec {str(spec)!r}: ssh= cannot be split into words: {exc}") from None
    options, hosts = [], []
    argument = False  # whether the next word is the last one's
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
    """A place among those that connect to `host`: `start()` is called at once, or when enough others have left."""

    _hosts = {}  # (process, host): tickets, the first AT_ONCE of them connecting; _lock
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
        except BaseException:  # for this thread, which may have made another one's start
            self._error = OSError("interrupted while it was started")
            raise
        finally:
            self._started.release()

    def wait(self):
        """Until start() has returned. Raises what that raised."""
        with self._started:
            if self._error is not None:
                raise self._error

    def leave(self):
        """Connected, or failed, or given up: start() is not called any more. Doing it again does nothing."""
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
        if self._called:
            with self._started:
                pass
