"""What the tests of RSync share: trees on disk compared, and an RSync that prints nothing."""

import hashlib
import os
import stat

import execnet_c

MIB = 1024 * 1024


def found(top):
    """{path below `top`: facts about what is there}, without times of directories."""
    top, facts = os.fsencode(top), {}
    for path, directories, files in os.walk(top):
        for name in [*directories, *files]:
            at = os.path.join(path, name)
            st = os.lstat(at)
            if stat.S_ISLNK(st.st_mode):
                facts[at[len(top) + 1 :]] = os.readlink(at)
            elif stat.S_ISDIR(st.st_mode):
                facts[at[len(top) + 1 :]] = stat.S_IMODE(st.st_mode)
            else:
                with open(at, "rb") as file:
                    content = hashlib.sha1(file.read()).digest()
                facts[at[len(top) + 1 :]] = (stat.S_IMODE(st.st_mode), st.st_mtime_ns, st.st_size, content)
    return facts


class Quiet(execnet_c.RSync):
    """An RSync that keeps in `sent` what it would print."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sent = []

    def _report_send_file(self, gateway, path):
        self.sent.append((gateway.id, path))


def send(source, *targets, **options):
    """Send to (gateway, directory) targets; returns the files that were sent, as (gateway's id, path)."""
    rsync = Quiet(source)
    for gateway, directory in targets:
        rsync.add_target(gateway, directory, **options)
    rsync.send()
    return rsync.sent


def fill(directory, count, size):
    """Make `count` files of `size` bytes, all different."""
    directory.mkdir(exist_ok=True)
    for i in range(count):
        (directory / f"file {i}").write_bytes(i.to_bytes(4, "big") * (size // 4))


def are_complete(directory, source):
    """Whether every file in `directory` is the same as in `source`."""
    theirs, ours = found(directory), found(source)
    return all(ours.get(name) == fact for name, fact in theirs.items())
