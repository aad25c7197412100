"""The receiving end of rsync.py: makes a directory equal to what the sender describes.

This module is sent to the far end as a task: it imports the standard library only, and runs on Python 3.8 and PyPy. The
head of rsync.py says what the two ends send each other. A file is written under a temporary name, and renamed when it is
complete. However this task ends, no incomplete file stays behind.
"""

import errno
import os
import stat

ACK_AFTER = 256 * 1024  # cost of what is taken before the next "ack" is sent
ASK_AFTER = 256  # requests that are sent together
RECORD = 1024  # what a record costs beside its bytes: there may be millions of empty files


def cost_of(item):
    """How much of the sender's window (WINDOW in rsync.py) an item takes."""
    if isinstance(item, bytes):
        return RECORD + len(item)
    return sum([RECORD + (len(record) if isinstance(record, bytes) else 0) for record in item])


def lstat(path):
    """os.lstat(), or None if that fails. If it did for another reason than a missing file, what the caller then does at
    `path` fails, too, and says why."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def checksum_of(path):
    """None if the file cannot be read, or there is no md5: then the file is sent."""
    try:
        try:
            from _md5 import md5  # not OpenSSL's, which takes longer to load and is forbidden on some systems
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
    """Remove a file, a link, or a directory with all in it. Without shutil, because its import takes longer than most of
    what this task does."""
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
            for name in directories:  # links to directories are among them
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
    """Rename `temporary`, a file or a link, to `path`, and replace what is there, even a directory."""
    try:
        os.rename(temporary, path)
    except OSError:
        st = lstat(path)
        if st is None or not stat.S_ISDIR(st.st_mode):
            raise
        destroy(path)
        os.rename(temporary, path)


def settle(path, mode, mtime):
    """Give a file the mode and time of the sender's file, if possible: some file systems have neither."""
    try:
        os.chmod(path, stat.S_IMODE(mode))
        os.utime(path, ns=(mtime, mtime))
    except OSError:
        pass


class Receiver:
    def __init__(self, channel, destdir, delete):
        self.channel = channel
        self.root = os.path.abspath(destdir)  # absolute, because links into it are made from this path
        self.delete = delete
        self.temporary = b".execnet_c-%d-%s" % (os.getpid(), os.urandom(6).hex().encode())
        self.files_seen = 0
        self.requests = []  # (number of the file, checksum of our file or None), not sent yet
        self.files = []  # (path, mode, time) of all requested files, in the order of the requests
        self.links = []  # (path, target)
        self.partial = None  # the path of the temporary file or link, while there is one
        self.problems = []  # texts about what could not be removed; the rest is done all the same
        self.cost = self.files_done = 0  # since the last "ack"
        self.written = 0  # bytes of the file that is being received

    def run(self):
        try:
            self.receive()
        finally:
            self.drop()  # again: the interrupt that comes when the connection ends may have stopped the first call

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
        """Make the directories, remove what the sender does not have, and find out which files to request."""
        entries = self.entries()
        inside = []  # (path, names in it, whether it is new) of the directory we are in and of those above it
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
        """Refuse to replace the destination by something of another kind, which was probably not meant. A link may be
        replaced."""
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
        """Make a directory if it is not there; true if it is new."""
        st = None if new else lstat(path)
        if st is not None and not stat.S_ISDIR(st.st_mode):
            os.unlink(path)
            st = None
        if st is None:
            try:
                os.makedirs(path)
            except FileExistsError:  # another target of the same rsync has the same directory, and has just made it
                st = os.lstat(path)
                if not stat.S_ISDIR(st.st_mode):
                    raise
        mode = stat.S_IMODE(mode) | 0o700  # files must be written into a read-only directory, too
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
        """Request a file unless our file has the same size and time."""
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
                os.close(done)  # this may fail: the disk is full
                settle(self.partial, mode, mtime)
                put(self.partial, path)
                self.partial = None
        except OSError as exc:
            if exc.errno is not None:  # else it is the channel's error, and not about this file
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
                pass  # it was not made yet
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
            exc.filename = os.fsdecode(exc.filename)  # a str is easier to read in the error's text
        raise


if __name__ == "__channelexec__":
    serve(channel)  # noqa: F821
