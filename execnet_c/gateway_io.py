"""execnet's module gateway_io: the command lines of far ends, for programs that put their own in their place.

Whoever sets `ssh_args`, `popen_args` or `vagrant_ssh_args` here to a function of the spec that returns a list of words,
or `popen_bootstrapline` to another text, has gateways started so. What execnet asks of such a command is what it must
do here: start a Python that evaluates and runs the first line of its stdin, as `popen_bootstrapline` does. Whoever sets
nothing gets this library's own command lines (see transport.py), not what these functions return.

A program's own command line is run as it is: keepalive= adds nothing to it, and where a shell and ssh stand between,
an exit status of 255 is taken for ssh's failure.
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


def program_s_own(spec):
    """The command line that a program has for `spec`; None where it leaves that to us."""
    for key in ("popen", "ssh", "vagrant_ssh"):
        name = key + "_args"
        if getattr(spec, key):
            mine = all(globals()[one] is _OURS[one] for one in (name, "popen_bootstrapline"))
            return None if mine else list(globals()[name](spec))
    return None
