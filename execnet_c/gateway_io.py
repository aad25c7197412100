"""execnet's module gateway_io: the command lines of far ends, for programs that replace them by their own.

A program may set `popen_args`, `ssh_args` or `vagrant_ssh_args` here to a function that takes the spec and returns a list
of words, or `popen_bootstrapline` to another text: gateways are started with them then. As with execnet, such a command
must start a Python that evaluates the first line of its stdin and runs the result, as `popen_bootstrapline` does. If the
program sets nothing, gateways use the command lines of near/transport.py, not those that the functions here return.

A program's own command line is run as it is: keepalive= adds nothing to it, and over ssh an exit status of 255 is always
taken for a failure of ssh itself.
"""

import shlex
import sys

popen_bootstrapline = "import sys;exec(eval(sys.stdin.readline()))"
shell_split_path = shlex.split


def popen_args(spec):
    """The words of execnet's command line for a process of this machine."""
    words = shell_split_path(spec.python) if spec.python else [sys.executable]
    return [*words, "-u", *(["-B"] if spec.dont_write_bytecode else []), "-c", popen_bootstrapline]


def ssh_args(spec):
    """The words of execnet's command line for a process behind ssh."""
    return ["ssh", "-C", *_config(spec), *spec.ssh.split(), _remote_command(spec)]


def vagrant_ssh_args(spec):
    """The words of execnet's command line for a process in a Vagrant machine."""
    return ["vagrant", "ssh", spec.vagrant_ssh, "--", "-C", *_config(spec), _remote_command(spec)]


def _config(spec):
    return [] if spec.ssh_config is None else ["-F", str(spec.ssh_config)]


def _remote_command(spec):
    return f'{spec.python or "python"} -c "{popen_bootstrapline}"'


_OURS = {name: globals()[name] for name in ("popen_args", "ssh_args", "vagrant_ssh_args", "popen_bootstrapline")}


def programs_own(spec):
    """The command line that the program's own functions make for `spec`; None if it has set none."""
    for key in ("popen", "ssh", "vagrant_ssh"):
        name = key + "_args"
        if getattr(spec, key):
            ours = all(globals()[one] is _OURS[one] for one in (name, "popen_bootstrapline"))
            return None if ours else list(globals()[name](spec))
    return None
