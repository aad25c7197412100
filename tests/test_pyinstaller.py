"""A program that PyInstaller has made of one that uses execnet_c: all that is sent to far ends goes with it.

PyInstaller finds this package's hook by its entry point; nothing is told to it here.
"""

import os
import subprocess
import sys

import pytest
from far_ends import PLAIN

pytestmark = [pytest.mark.any_core, pytest.mark.timeout(300), pytest.mark.deep]

pytest.importorskip("PyInstaller")

PROGRAM = """
import os
import sys

import execnet_c
from execnet_c.near.deaths import GatewayDied

python, source, target = sys.argv[1:]
assert sys.frozen and execnet_c.core == "C"
group = execnet_c.Group()
outer = group.makegateway(f"popen//python={python}//id=outer")
inner = group.makegateway("popen//via=outer//id=inner")
served = group.makegateway("socket//installvia=outer//id=served")
for gateway in group:
    channel = gateway.remote_exec("channel.send(channel.receive() + 1)")
    channel.send(41)
    print(gateway.id, channel.receive(60), gateway._rinfo().executable == python)
    channel = gateway.remote_exec("import os; channel.send(os.environ.get('LD_LIBRARY_PATH'))")
    assert channel.receive(60) == {libraries!r}
file = inner.remote_exec("print('line', file=channel.makefile('w'))").makefile("r")
print(file.readline().strip())
rsync = execnet_c.RSync(source, verbose=False)
rsync.add_target(inner, target)
rsync.send()
print(open(os.path.join(target, "file")).read())
try:
    outer.remote_exec("import os; os._exit(7)").receive(60)
except GatewayDied as exc:
    print(type(exc).__name__, exc.status)
group.terminate(10)
"""

SAID = """\
outer 42 True
inner 42 True
served 42 True
line
what it holds
WorkerExited 7
"""


@pytest.mark.parametrize("form, libraries", [("--onefile", "/given"), ("--onedir", None)])
def test_it_starts_far_ends_as_a_script_does(tmp_path, form, libraries):
    there = [end for end in PLAIN if not end.missing]
    if not there:
        pytest.skip("there is no Python without execnet_c")
    (tmp_path / "program.py").write_text(PROGRAM.replace("{libraries!r}", repr(libraries)))
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("what it holds")
    env = {**os.environ, "PYINSTALLER_CONFIG_DIR": str(tmp_path / "config")}
    options = [form, "--noconfirm", "--log-level=WARN", "--exclude-module=numpy"]
    status, said = run([sys.executable, "-m", "PyInstaller", *options, "program.py"], tmp_path, env)
    assert status == 0, said
    program = tmp_path / "dist/program"
    program = program / "program" if program.is_dir() else program
    env = {name: value for name, value in os.environ.items() if not name.startswith(("EXECNET_C_", "LD_LIBRARY"))}
    if libraries:
        env["LD_LIBRARY_PATH"] = libraries
    for end in (there[0], there[-1]):
        target = tmp_path / f"target of {end.name}"
        status, said = run([program, *end.command, tmp_path / "source", target], tmp_path, env)
        assert (status, said) == (0, SAID)


def run(command, folder, env):
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=140,
    )
    return done.returncode, done.stdout
