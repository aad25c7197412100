"""What runs at the far end: takes the standard streams, says hello, runs tasks until the connection ends.

The first task gets the main thread; a task that comes while the main thread is busy gets a thread of its own. One
spare thread waits for such a task at all times once the first task has come: the I/O thread, which learns of it,
cannot start Python threads. With the execution model main_thread_only there is none: the core keeps tasks for the main
thread, and refuses them when that takes too long.

Few imports: every one of them is paid for at each start.
"""

import os
import sys
from _signal import SIG_UNBLOCK, SIGINT, pthread_sigmask
from _thread import allocate_lock, start_new_thread
from _weakref import ref

from .. import __version__
from ..cores import core
from ..cores import module as _core

INTERRUPT_TEXT = "keyboard-interrupted"
NO_MEMORY = "MemoryError\n", "MemoryError", ""
RESERVE = 1 << 21  # bytes, never touched: enough for Python to compile what tells of it
LONGEST_BIRTH = 5.0  # seconds
_compile = getattr(_core, "_compile", compile)


class WorkerGateway(_core.Gateway):
    """The far end's view of its gateway: `channel.gateway` in a task."""

    id = "<worker>"

    def __repr__(self):
        return f"<WorkerGateway id={self.id!r}>"

    execmodel = property(lambda self: self._execmodel())

    def _execmodel(self):
        if self._parking:
            return self._parking.execmodel
        from ..models.execmodel import ExecModel

        return ExecModel(self._model)

    def _death(self, sending):
        if self._state()["heard_goodbye"]:
            return OSError("cannot send (already closed?): the other side has said goodbye") if sending else EOFError()
        return _core.GatewayDied("the other side is gone without a goodbye")


def main(marks=True, memory=()):
    """Serve the process that started this one over the standard streams it gave. Returns when that is over.

    marks: the marker in front of the frames is still to be written.
    memory: (the fd of what that process shares with this one,); no frames go through the streams then.
    """
    if os.environ.get("EXECNET_DEBUG"):
        from ..common import trace

        trace.start(_core)
    gateway = WorkerGateway()
    fd_in, fd_out = _take_streams()
    if marks and not memory:
        os.write(fd_out, _core.MARKER)
    gateway._serve(fd_in, fd_out, *memory)
    pid = os.getpid()
    settings = gateway._hello(None)
    if settings is None:
        sys.exit(gateway._broke)
    gateway.id = f"{settings['id']}-worker"
    gateway._model = settings["execmodel"]
    if settings["version"] != __version__ or any(map(settings.get, ("chdir", "nice", "env", "start"))):
        _apply(gateway, settings)
    executable = sys.executable and sys.executable.encode("utf-8", "backslashreplace").decode()
    gateway._set_facts(
        {"executable": executable, "version_info": sys.version_info[:5], "platform": sys.platform, "pid": pid}
    )
    if core == "C":
        _move(gateway, settings.get("memory"))
    answer = {"version": __version__, "core": core, "pid": pid}
    lent = settings.get("stderr")
    # What this process has said so far may be on its way through a pipe: the answer waits for that.
    tasks = _begin(gateway, answer) if not lent or lent[-1] and not sys.flags.verbose else None
    if lent:
        if "_serve_aloud" not in globals():  # the text that came to another interpreter is without it
            exec(lent[0], globals())
        _serve_aloud(gateway, answer, tasks, *lent[1:-1])
    else:
        _serve(tasks)
    if gateway._broke:  # the core has said why
        sys.exit(1)


def _move(gateway, offered):
    """To memory that the other side shares, if it does."""
    if offered:
        from ..common.rings import attach

        if attach(gateway, offered):
            gateway._move()


def _begin(gateway, answer):
    """The answer goes out as early as it can: the other side's work and what is left to do here take place at the same
    time."""
    gateway._send(_core.HELLO, 0, answer)
    if sys.version_info < (3, 9):
        _end_a_thread()
    return _Tasks(gateway, answer["pid"])


def _serve(tasks):
    gateway = tasks.gateway
    if gateway._parking:
        from ..models.greenlets import serve

        serve(gateway, tasks)
    else:
        tasks.serve_main()


def _end_a_thread():
    """glibc loads a file when the first thread ends there, or aborts the process: now, before a task takes all fds."""
    from _thread import get_native_id
    from time import sleep

    ids = []
    try:
        start_new_thread(lambda: ids.append(get_native_id()), ())
    except RuntimeError:
        return
    for _ in range(1000):
        if ids and not os.path.exists("/proc/self/task/%d" % ids[0]):
            return
        sleep(0.0005)


def _take_streams():
    """The connection's two fds, moved away from 0 and 1, which become /dev/null: nothing that a task reads or prints
    reaches the wire."""
    fds = os.dup(0), os.dup(1)
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY)):
        null = os.open(os.devnull, flags)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
    return fds


def _serve_aloud(gateway, answer, tasks, caught, file, ours):
    """The same with the stderr that the other side has lent, if that has got through to us and no site has put something
    else in the place of our own. `file` is for last words. `tasks`: None while the answer waits."""
    words, lent = file[0], _is_lent(caught, file, ours)
    if tasks is None:
        if lent:
            gateway._send(_core.HELLO, 0, {"waits": 1})
            if not gateway._hello(None):
                return
        tasks = _begin(gateway, answer)
    if not lent:
        return _serve(tasks)
    os.dup2(ours[0], 2)
    os.close(ours[0])
    os.set_inheritable(words, False)
    if caught[1:] == file[1:]:
        _say_again(words)
    os.lseek(words, 1, 0)
    gateway._words = words
    # Its crash is not ours; 0 is only read.
    os.register_at_fork(after_in_child=lambda: _is_lent(file) and os.dup2(0, words, False))
    try:
        import faulthandler

        if not faulthandler.is_enabled():
            faulthandler.enable(words, False)
    except Exception:
        pass  # not every Python has it
    try:
        _serve(tasks)
    except BaseException as exc:
        from ..common.errors import told

        if _is_lent(file):  # a task may have closed it, and have another one there
            os.write(words, told(exc)[0].encode())
        raise


def _is_lent(*lent):
    try:
        return all([(at.st_dev, at.st_ino) == (dev, ino) for fd, dev, ino in lent for at in [os.fstat(fd)]])
    except OSError:
        return False


def _say_again(file):
    """What was said until now."""
    size, at = os.lseek(file, 0, 1), 0
    try:
        while at < size:
            at += os.write(2, os.pread(file, size - at, at))
    except OSError:
        pass  # nobody to be told
    os.pwrite(file, bytes(size), 0)


def _apply(gateway, settings):
    """Ends the process if that fails, and says why."""
    if settings["version"] != __version__:
        sys.stderr.write(f"execnet_c {__version__} cannot serve execnet_c {settings['version']}\n")
        sys.exit(3)
    path, nice = settings["chdir"], settings["nice"]
    try:
        if path:
            path = os.path.expanduser(path)
            if path[0] == "~":
                raise OSError(f"chdir={path}: there is no such home")
            if not os.path.exists(path):
                os.mkdir(path)
            os.chdir(path)
        if nice:
            os.nice(nice)
        os.environ.update(settings["env"])
        if settings["start"]:
            exec(settings["start"], {"package": __package__.partition(".")[0], "settings": settings, "gateway": gateway})
    except Exception as exc:
        from ..common.errors import told

        error = told(exc)
        gateway._send(_core.HELLO, 0, {"error": error})
        sys.exit(error[2] if settings["start"] else 3)  # nobody may wait for an answer then


class _Tasks:
    def __init__(self, gateway, pid):
        self.gateway = gateway
        self._pid = pid
        self._lock = allocate_lock()
        self._spares = 0  # threads that wait for a task; _lock
        self._birth = None  # of a spare thread that has been started, see _start_spare(); _lock
        self._reserve = bytes(RESERVE)
        if gateway._model == "thread":
            try:
                self._start_spare()
            except (MemoryError, RuntimeError):
                pass  # the first task is told, if it fails again

    def serve_main(self):
        """The main thread's life. Ctrl-C ends a task, never an idle worker."""
        more, shielded = True, True
        while more:
            try:
                if shielded:  # Ctrl-C while this process started was held back, and ends nothing now
                    shielded = False
                    pthread_sigmask(SIG_UNBLOCK, (SIGINT,))
                more = self._serve_one(True)
            except (KeyboardInterrupt, MemoryError):
                pass
        try:
            self.gateway._wait_idle(None)  # for tasks in other threads; the core sees to it that it does not take ever
        except KeyboardInterrupt:
            pass

    def _start_spare(self):
        """`told` is released when the thread lives, or when it has had no memory to begin: it alone holds `birth`, which
        goes with it. It waits for `go`: the thread that waits for the birth has a task to run, and goes first."""
        told, go = allocate_lock(), allocate_lock()
        told.acquire()
        go.acquire()
        birth = {told}
        seen = ref(birth, lambda _: told.locked() and told.release())
        start_new_thread(self._serve_spare, (birth, go))
        self._birth = told, seen, go

    def _ensure_spare(self):
        with self._lock:
            if self._spares > 0:
                return
            if self._birth is None:
                self._start_spare()
            (told, seen, go), self._birth = self._birth, None
            self._spares += 1
            try:  # one that has no memory to tell, or an interpreter that collects garbage later, is not waited for
                unborn = told.acquire(True, LONGEST_BIRTH) and seen() is None
            finally:
                go.release()
            if unborn:
                self._spares -= 1
                raise MemoryError("no memory for the thread that would wait for the next task")

    def _serve_spare(self, birth, go):
        (told,) = birth
        told.release()
        go.acquire()
        try:
            from ..models import mainthread  # noqa: F401  (here, where the first task does not wait for it)
        except Exception:
            pass  # the first task was quicker, and has made it impossible: it took all fds, or what imports need
        more = True
        try:
            while more:
                try:
                    more = self._serve_one(False)
                except MemoryError:
                    pass
                with self._lock:
                    if self._spares > 0:
                        return  # another one waits already
                    self._spares += more
        except BaseException:
            if os.getpid() == self._pid:
                raise

    def _serve_one(self, primary):
        """Wait for one task and run it; false when there will be none."""
        return self.run([], primary)

    def run(self, task, primary=False):
        """Run the one that is in the list `task`, or will be: the core fills it, and an interrupt right behind that must
        not lose the task."""
        try:
            try:
                if not task:
                    try:
                        more = self.gateway._next_task(primary, task)
                    finally:
                        if not primary:
                            with self._lock:
                                self._spares -= 1
                    if not more:
                        return False
                    self._reserve = self._reserve or bytes(RESERVE)
                    if self.gateway._model == "thread":
                        self._ensure_spare()
                error = _run(*task)
            except KeyboardInterrupt:
                if not task:
                    raise
                error = INTERRUPT_TEXT, "KeyboardInterrupt", ""
            except BaseException as exc:
                if not task:
                    raise
                self._reserve = None  # there may be no other memory to tell of it
                error = self._error_of(exc)
            finally:
                if task and primary:  # first of all: an interrupt that skipped it would have the worker's end wait for it
                    self.gateway._task_done(True)
                if os.getpid() != self._pid:
                    _leave_child()
            for words in (error, NO_MEMORY):
                try:
                    task[0].close(words)
                    break
                except OSError:
                    break  # the other side is gone, nobody wants to know
                except MemoryError:
                    self._reserve = None
                except BaseException:  # an interrupt that comes too late; what the task has made of the class
                    self._close_plainly(task[0], words)
                    break
        finally:
            if task and not primary:  # last of all: the worker's end waits for what is told
                self.gateway._task_done(False)
        return True

    def _close_plainly(self, channel, error):
        try:
            self.gateway._send(*(_core.CLOSE, channel.id) if error is None else (_core.CLOSE_ERROR, channel.id, error))
        except BaseException:
            pass  # the core says that much when the channel goes

    def _error_of(self, exc):
        """What a task's channel is closed with; always succeeds."""
        if os.getpid() != self._pid:
            _leave_child(exc)
        kind = type(exc)  # isinstance() asks the exception, too
        try:
            if issubclass(kind, MemoryError):
                _let_go(exc.__traceback__)
            # The end of a channel of ours, which receive() has told the task, ends that, too.
            if issubclass(kind, EOFError) and getattr(exc, "_end_of", None) == id(self.gateway):
                return None
            from ..common.errors import told

            error = told(exc)
            if issubclass(kind, ImportError) and exc.name == "execnet_c":
                text = (
                    "execnet_c is not installed here. A tagger of execnet_c.tagging needs it; tagger.to_nltk() makes "
                    "one of NLTK's, to be sent instead\n"
                )
                error = error[0] + text, *error[1:]
            return error
        except BaseException:
            try:
                return _plainly(kind.__name__, exc)
            except MemoryError:
                return NO_MEMORY


def _let_go(traceback):
    """Of what the variables of its functions hold: they are over, and it may be all the memory there is."""
    while traceback:
        try:
            traceback.tb_frame.clear()
        except RuntimeError:
            pass  # this one runs
        traceback = traceback.tb_next


def _plainly(name, exc):
    """What is told of an exception where errors.py cannot be imported, being out of reach for who has become another user,
    say."""
    try:
        message = str(exc).encode("utf-8", "backslashreplace").decode()
    except BaseException:  # its own code
        return name + "\n", name, None
    return f"{name}: {message}\n", name, message


def _run(channel, item):
    if isinstance(item, BaseException):
        raise item
    source, file_name, call_name, kwargs = item
    scope = {"channel": channel, "__name__": "__channelexec__"}
    channel._executing = True
    try:
        exec(_compile(source + "\n", file_name or "<remote exec>", "exec"), scope)
        if call_name:
            scope[call_name](channel, **kwargs)
    finally:
        channel._executing = False


def _leave_child(exc=None):
    """A task forked, and the child came back from it: it has no connection, and must not act as the worker."""
    status = 0
    if isinstance(exc, SystemExit):
        status = exc.code if isinstance(exc.code, int) else exc.code is not None
    elif exc is not None:
        from ..common.errors import told

        sys.stderr.write(told(exc)[0])
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    os._exit(status)
