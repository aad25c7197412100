"""The receiving end of rsync.py: brings a directory into the state that the sender describes.

This text travels to the far end as a task: it imports the standard library only, and runs on Python 3.8 and PyPy. What
the two say to each other stands at the head of rsync.py. A file is written under another name and put in its place when
it is complete; whatever ends this task, no part of a file stays behind under any name.
"""

import errno
import os
import stat

ACK_AFTER = 256 * 1024  # units of cost that are taken without telling the sender
ASK_AFTER = 256  # requests that are kept until they are sent
RECORD = 1024  # what a record costs beside its bytes: none is for nothing, there may be millions of empty files


def cost_of(item):
    """How much of the sender's window an item takes."""
    if isinstance(item, bytes):
        return RECORD + len(item)
    return sum([RECORD + (len(record) if isinstance(record, bytes) else 0) for record in item])


def lstat(path):
    """None for what is not there, or cannot be looked at: whoever makes it then learns why."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def checksum_of(path):
    """None where there is none to be had: the file is sent then."""
    try:
        try:
            from _md5 import md5  # without OpenSSL, which takes longer to load, and refuses md5 in some places
        except ImportError:
            from hashlib import md5
        found = md5()
        with open(path, "rb", 0) as file:
            while True:
                data = file.read(256 * 1024)
                if not data:
                    return found.digest()
                found.update(data)
    except (OSError, ValueError):
        return None


def destroy(path):
    """Remove whatever is there. Not with shutil, whose import costs more than most that is to do here."""
    try:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except OSError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise
    at = path
    try:
        for below, directories, files, fd in os.fwalk(path, False, fail):
            for name in files:
                at = os.path.join(below, name)
                os.unlink(name, dir_fd=fd)
            for name in directories:  # and links to such
                at = os.path.join(below, name)
                is_link = stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
                (os.unlink if is_link else os.rmdir)(name, dir_fd=fd)
        at = path
        os.rmdir(path)
    except OSError as exc:
        exc.filename = at
        raise


def fail(exc):
    raise exc


def put(temporary, path):
    """Have `temporary`, a file or a link, under the name `path`, whatever is there."""
    try:
        os.rename(temporary, path)
    except OSError:
        st = lstat(path)
        if st is None or not stat.S_ISDIR(st.st_mode):
            raise
        destroy(path)
        os.rename(temporary, path)


def settle(path, mode, mtime):
    """Give a file the mode and time of the sender's, where it may be done: a file system may know neither."""
    try:
        os.chmod(path, stat.S_IMODE(mode))
        os.utime(path, ns=(mtime, mtime))
    except OSError:
        pass


class Receiver:
    def __init__(self, channel, destdir, delete):
        self.channel = channel
        self.root = os.path.abspath(destdir)  # links into it must work from wherever they are
        self.delete = delete
        self.temporary = b".execnet_c-%d-%s" % (os.getpid(), os.urandom(6).hex().encode())
        self.files_seen = 0
        self.requests = []  # (number of the file, checksum of the one that is here) not sent yet
        self.files = []  # (path, mode, time) of all requested ones, in that order
        self.links = []
        self.partial = None  # the path of what is not in its place yet, if there is something
        self.problems = []  # what could not be removed: no reason to leave the rest undone
        self.cost = self.files_done = 0  # since the last word to the sender
        self.written = 0  # bytes of the file that is received

    def run(self):
        try:
            self.receive()
        finally:
            self.drop()  # again: when the connection ends an interrupt comes, too, perhaps in the midst of that

    def receive(self):
        self.receive_tree()
        self.ask()
        self.channel.send(("list",))
        records = self.records()
        for path, mode, mtime in self.files:
            self.receive_file(path, mode, mtime, records)
            self.files_done += 1
            self.written = 0
        for path, target in self.links:
            self.make_link(path, target)
        self.acknowledge()
        self.channel.send(("done", self.problems))

    # --- from the sender --------------------------------------------------------------------------------------------

    def take(self):
        if self.cost >= ACK_AFTER:
            self.acknowledge()
        item = self.channel.receive()
        self.cost += cost_of(item)
        return item

    def acknowledge(self):
        self.channel.send(("ack", self.cost, self.files_done, self.written))
        self.cost = self.files_done = 0

    def entries(self):
        while True:
            yield from self.take().split(b"\0")

    def records(self):
        while True:
            item = self.take()
            if isinstance(item, bytes):
                yield item
            else:
                yield from item

    # --- the tree ---------------------------------------------------------------------------------------------------

    def receive_tree(self):
        """Make the directories, remove what is to go, and find out which files are wanted."""
        entries = self.entries()
        inside = []  # (path, names in it, whether it is new) of the directories around
        for entry in entries:
            kind, entry = entry[:1], entry[1:]
            if kind == b".":
                return
            if kind == b"U":
                self.leave(*inside.pop())
                continue
            if kind == b"D":
                mode, name = entry.split(b" ", 1)
            elif kind == b"F":
                mode, mtime, seconds, size, name = entry.split(b" ", 4)
            else:
                name = entry
            path, new = self.root, False
            if not inside:
                self.look_at_root(kind == b"D")
            else:
                path, names, new = inside[-1]
                path += b"/" + name
                names.add(name)
            if kind == b"D":
                inside.append((path, set(), self.enter(path, int(mode), new)))
            elif kind == b"F":
                self.compare(path, int(mode), int(mtime), float(seconds), int(size), new)
            else:
                target = next(entries)
                self.links.append((path, os.path.join(self.root, target) if kind == b"B" else target))

    def look_at_root(self, directory):
        """What is there already gives way to nothing of another kind: that was hardly meant. A link does."""
        st = lstat(self.root)
        if st is None or stat.S_ISLNK(st.st_mode):
            return
        if directory and not stat.S_ISDIR(st.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "what is there is no directory, and one is to be sent", self.root)
        if not directory and stat.S_ISDIR(st.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory is there, and a file is to be sent", self.root)
        if not directory and not stat.S_ISREG(st.st_mode):
            raise FileExistsError(errno.EEXIST, "what is there is no file, and one is to be sent", self.root)

    def enter(self, path, mode, new):
        """Make a directory, or have it as it is; true if it is new."""
        st = None if new else lstat(path)
        if st is not None and not stat.S_ISDIR(st.st_mode):
            os.unlink(path)
            st = None
        if st is None:
            try:
                os.makedirs(path)
            except FileExistsError:  # another target is the same directory, and has just made it
                st = os.lstat(path)
                if not stat.S_ISDIR(st.st_mode):
                    raise
        mode = stat.S_IMODE(mode) | 0o700  # a read-only directory is to be filled, too
        if st is None or stat.S_IMODE(st.st_mode) != mode:
            os.chmod(path, mode)
        return st is None

    def leave(self, path, names, new):
        if self.delete and not new:
            for name in os.listdir(path):
                if name not in names:
                    try:
                        destroy(os.path.join(path, name))
                    except (OSError, RecursionError) as exc:
                        if isinstance(exc, OSError) and isinstance(exc.filename, bytes):
                            exc.filename = os.fsdecode(exc.filename)
                        self.problems.append("%s: %s" % (type(exc).__name__, exc))

    def compare(self, path, mode, mtime, seconds, size, new):
        """Ask for a file unless the one that is here has its size and its time."""
        number, checksum = self.files_seen, None
        self.files_seen += 1
        st = None if new else lstat(path)
        if st is not None and stat.S_ISREG(st.st_mode) and st.st_size == size:
            if mtime == st.st_mtime_ns or seconds == st.st_mtime:
                if mode != st.st_mode:
                    os.chmod(path, stat.S_IMODE(mode))
                return
            checksum = checksum_of(path)
        self.files.append((path, mode, mtime))
        self.requests.append((number, checksum))
        if len(self.requests) >= ASK_AFTER:
            self.ask()

    def ask(self):
        if self.requests:
            self.channel.send(("send", self.requests))
            self.requests = []

    # --- files and links --------------------------------------------------------------------------------------------

    def receive_file(self, path, mode, mtime, records):
        self.partial = os.path.join(os.path.dirname(path), self.temporary)
        fd, record = -1, False
        try:
            for record in records:
                if record is not True and not isinstance(record, bytes):
                    break
                if fd < 0:
                    fd = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                if record is True:
                    break
                self.write(fd, record)
            if record is None:
                self.partial = None
                settle(path, mode, mtime)
            elif record is True:
                done, fd = fd, -1
                os.close(done)  # which may say that the disk is full
                settle(self.partial, mode, mtime)
                put(self.partial, path)
                self.partial = None
        except OSError as exc:
            if exc.errno is not None:  # else the connection's
                exc.filename, exc.filename2 = path, None
            raise
        finally:
            if fd >= 0:
                os.close(fd)
            self.drop()

    def write(self, fd, data):
        self.written += len(data)
        data = memoryview(data)
        while data:
            data = data[os.write(fd, data) :]

    def drop(self):
        if self.partial is not None:
            try:
                os.unlink(self.partial)
            except OSError:
                pass  # there is none
            self.partial = None

    def make_link(self, path, target):
        try:
            if os.readlink(path) == target:
                return
        except OSError:
            pass  # it is no link, or not there
        self.partial = os.path.join(os.path.dirname(path), self.temporary)
        try:
            os.symlink(target, self.partial)
            put(self.partial, path)
            self.partial = None
        finally:
            self.drop()


def serve(channel):
    destdir, options = channel.receive()
    try:
        Receiver(channel, destdir, options.get("delete")).run()
    except OSError as exc:
        if isinstance(exc.filename, bytes):
            exc.filename = os.fsdecode(exc.filename)  # for people
        raise


if __name__ == "__channelexec__":
    serve(channel)  # noqa: F821
