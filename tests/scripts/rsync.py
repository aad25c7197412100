import os
import random
import shutil
import stat

import execnet

# In an order that is the same wherever the files are.
listdir = os.listdir
os.listdir = lambda path: sorted(listdir(path))


def tree(top):
    for path, directories, files in sorted(os.walk(top)):
        st = os.lstat(path)
        print("   ", os.path.relpath(path, top), oct(st.st_mode))
        for name in sorted(directories + files):
            found = os.path.join(path, name)
            st = os.lstat(found)
            if stat.S_ISLNK(st.st_mode):
                print("   ", os.path.relpath(found, top), "->", os.readlink(found))
            elif stat.S_ISREG(st.st_mode):
                with open(found, "rb") as file:
                    print("   ", os.path.relpath(found, top), oct(st.st_mode), st.st_mtime, file.read(12))


def write(path, text, mode=0o644, mtime=1e9 + 0.25):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    os.utime(path, (mtime, mtime))


class Logging(execnet.RSync):
    def filter(self, path):
        return not path.endswith("~")

    def _report_send_file(self, gateway, path):
        print("  report", gateway.id, path)


def send(source, *targets, callback=True, **options):
    def tell(what, size, channel):
        print(" ", what, size, type(channel).__name__)

    rsync = Logging(source, tell if callback else None)
    for gateway, destination in targets:
        rsync.add_target(gateway, destination, lambda: print("  finished"), **options)
    print("send", rsync.send())
    for _, destination in targets:
        tree(destination)


here = os.getcwd()
gw = execnet.makegateway("popen")
os.makedirs("source/sub/empty")
write("source/a", "content of a", 0o640)
write("source/none", "")
write("source/program", "x" * 300000, 0o755)
write("source/left out~", "")
write("source/sub/b", "content of b", 0o400)
for name, target in {
    "relative": "sub/b",
    "up": "../elsewhere",
    "absolute": here + "/source/sub/b",
    "outside": "/nowhere/at all",
    "itself": here + "/source",
    "directory": "sub",
    "sub/sideways": "../a",
}.items():
    os.symlink(target, "source/" + name)

print("--- a first time, and with a slash at the end")
send("source/", (gw, here + "/first"))

print("--- one changed, one touched, one of another time but the same, one of the same size and time but not the same")
write("source/a", "another")
os.utime("source/program", (5, 5))
write("source/sub/b", "CONTENT OF B", 0o400)
send("source", (gw, here + "/first"))

print("--- what is over there is of another kind")
os.unlink("first/program")
os.makedirs("first/program/full/of")
shutil.rmtree("first/sub")
write("first/sub", "a file")
os.unlink("first/up")
os.makedirs("first/up/and/up")
os.unlink("first/a")
os.symlink("/nowhere/at all", "first/a")
write("first/more", "")
os.mkdir("first/many")
send("source", (gw, here + "/first"))

print("--- and removed there")
write("source/one for the list", "1")
send("source", (gw, here + "/first"), delete=True)

print("--- one file, to a new place, again, and in the place of a link")
send("source/a", (gw, here + "/copy"))
write("source/a", "third", 0o744)
os.symlink("nowhere", "dangling")
send("source/a", (gw, here + "/copy"))
send("source/a", (gw, here + "/dangling"))
print(sorted(listdir(".")), open("copy").read(), open("dangling").read())

print("--- a directory in the place of a link to a directory")
os.symlink("source", "link")
send("source", (gw, here + "/link"), callback=False)
print(os.path.islink("link"))

print("--- who calls send() again")
rsync = execnet.RSync("source", verbose=False)
try:
    rsync.send()
except OSError as exc:
    print(type(exc).__name__, exc)
print(rsync.send(raises=False))

print("--- errors")
for destination in ("/proc/nowhere", here + "/copy/below"):
    rsync = Logging("source")
    rsync.add_target(gw, destination)
    try:
        rsync.send()
    except gw.remote_exec("").RemoteError as exc:
        print(str(exc).strip().splitlines()[-1].partition("Error: ")[2])

print("--- what random changes lead to")
rng = random.Random(7)


def change(top):
    files = sorted(os.path.join(path, name) for path, _, names in os.walk(top) for name in names)
    for path in rng.sample(files, len(files) // 4):
        os.unlink(path)
    for _ in range(6):
        path = os.path.join(top, *rng.choices("uvw", k=rng.randrange(1, 4)))
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            kind = rng.randrange(8)
            if kind == 0:
                shutil.rmtree(path)
            elif kind == 1:
                os.symlink(rng.choice(["u", "..", here + "/r/u/v", "/etc"]), path)
            else:
                text = rng.choice(["", "one", "two", "three" * 10])
                write(path, text, rng.choice([0o700, 0o755, 0o770]), rng.randrange(4) / 4)
        except OSError:
            pass


for top in ("r", "s"):
    os.mkdir(top)
    for name in "xyz":
        write(top + "/" + name, name)
    for _ in range(5):
        change(top)
for i in range(12):
    change(rng.choice("rs"))
    print("round", i)
    send("r", (gw, here + "/s"), callback=False, delete=rng.random() < 0.4)
execnet.default_group.terminate(2)
