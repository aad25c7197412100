"""Workers that do not come up: what is told of them."""

import pytest

from masters import run

USES = """
def first_uses(gateway, limit):
    for use in (
        lambda: gateway.remote_exec("channel.send(1)").receive(),
        lambda: gateway.newchannel().receive(),
        gateway.remote_status,
        lambda: gateway.remote_exec("pass").waitclose(),
    ):
        start = time.monotonic()
        error = raises((execnet_c.GatewayDied, OSError, EOFError), use)
        assert time.monotonic() - start < limit
        assert isinstance(error, execnet_c.GatewayDied), repr(error)
        yield error
"""


@pytest.mark.parametrize("program", ["/nonexistent/python", "/", "/etc/passwd"])
def test_a_program_that_cannot_be_started(program):
    run(
        """
        before = fds()
        group = execnet_c.Group()
        executable, sys.executable = sys.executable, sys.argv[1]
        for spec in ("popen", "popen//chdir=/"):
            error = raises(OSError, group.makegateway, spec)
            assert sys.argv[1] in str(error), error
            assert error.errno, error
        raises(OSError, execnet_c.Group, ["popen"] * 3)
        assert list(group) == []
        assert wait_until(lambda: fds() <= before), fds() - before
        sys.executable = executable
        assert worker_of(group.makegateway())
        """,
        program,
    )


SCRIPTS = {
    "true": ("exit 0", "exit status 0"),
    "false": ("exit 1", "exit status 1"),
    "complains": ("echo no such interpreter >&2; exit 127", "no such interpreter"),
    "kills itself": ("kill -9 $$", "SIGKILL"),
    "chatters": ("yes hello world, this is no frame at all 2>&-; exec sleep 1000", "no far end of ours"),
    "chatters after the marker": (r"printf '\0execnet_c\0'; exec yes hello world, this is no frame at all", ""),
    "echoes": (r"printf '\0execnet_c\0'; exec cat", ""),
}


@pytest.mark.parametrize("how", SCRIPTS)
@pytest.mark.parametrize("spec", ["popen", "popen//chdir=/", "popen//transport=pipe", "popen//transport=pipe//chdir=/"])
def test_a_program_that_is_no_python(how, spec, tmp_path):
    body, text = SCRIPTS[how]
    if how == "echoes" and spec != "popen//transport=pipe//chdir=/":
        return  # it greets as it is greeted, and nobody looks at what it says; or it is not greeted through the pipe
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    run(
        USES
        + """
if True:
        program, spec, text = sys.argv[1:]
        group = execnet_c.Group()
        executable, sys.executable = sys.executable, program
        start = time.monotonic()
        try:
            gateway = group.makegateway(spec)
            assert "chdir" not in spec
        except OSError as exc:
            errors = [exc]
            assert list(group) == []
        else:
            errors = list(first_uses(gateway, 5))
        print(f"{time.monotonic() - start:.3f} s", errors[0])
        for error in errors:
            assert text in str(error) and program in str(error), error
        sys.executable = executable
        group.terminate(timeout=0.5)
        assert time.monotonic() - start < 10
        assert worker_of(group.makegateway())
        """,
        script,
        spec,
        text,
        stderr=None,
    )


def test_a_program_that_says_nothing(tmp_path):
    """There is nothing to tell it from a slow one; it is ended with its group all the same."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o755)
    run(
        """
        group = execnet_c.Group()
        sys.executable = sys.argv[1]
        gateway = group.makegateway()
        channel = gateway.remote_exec("channel.send(1)")
        raises(channel.TimeoutError, channel.receive, 0.2)
        start = time.monotonic()
        group.terminate(timeout=0.3)
        took = time.monotonic() - start
        print(f"terminate: {took:.3f} s, timeout 0.3")
        assert took < 3
        """,
        script,
    )


@pytest.mark.parametrize("spec", ["popen", "popen//chdir=/"])
@pytest.mark.parametrize("how", ["PYTHONHOME", "sitecustomize"])
def test_a_python_that_fails_at_its_start(how, spec, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'this site is broken')\nos._exit(5)\n")
    run(
        USES
        + """
if True:
        how, path, spec = sys.argv[1:]
        os.environ["PYTHONPATH" if how == "sitecustomize" else "PYTHONHOME"] = path
        group = execnet_c.Group()
        try:
            gateway = group.makegateway(spec)
            assert "chdir" not in spec
        except OSError as exc:
            errors = [exc]
        else:
            errors = list(first_uses(gateway, 10))
        for error in errors:
            assert isinstance(error, execnet_c.GatewayDied)
            assert "before it could serve" in str(error) and sys.executable in str(error), error
            assert ("this site is broken" if how == "sitecustomize" else "encodings") in str(error), error
        """,
        how,
        tmp_path,
        spec,
        stderr=None,
    )


@pytest.mark.parametrize("spec", ["popen", "popen//chdir=/"])
def test_another_version_at_the_far_end(spec):
    run(
        USES
        + """
if True:
        import execnet_c.near.bootstrap
        version = execnet_c.__version__
        execnet_c.near.bootstrap.__version__ = "0.0.7"
        group = execnet_c.Group()
        try:
            gateway = group.makegateway(sys.argv[1])
            assert sys.argv[1] == "popen"
        except OSError as exc:
            errors = [exc]
        else:
            errors = list(first_uses(gateway, 10))
        for error in errors:
            assert isinstance(error, execnet_c.GatewayDied) and error.status == 3
            assert "0.0.7" in str(error) and version in str(error), error
        """,
        spec,
        stderr=None,
    )
