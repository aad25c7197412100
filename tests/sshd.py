"""A private sshd on loopback that plays several hosts, and the ssh_config to reach them with.

Each host has an address of its own in 127.0.0.0/8, and its own PATH, login shell and environment: programs of this machine
are found there only if the Host names them. Keys, configuration and log lie in a directory that is removed with the server.
The server ends with the process that has started it, however that ends.

This file does not use pytest: benchmarks use it, too.
"""

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from masters import kill_all

# Programs that are on every host's PATH, beside its Pythons.
TOOLS = ("sh", "env", "nice", "cat", "sleep", "uname", "id", "kill", "mkdir", "ls", "true", "false", "dd", "setsid", "head")

START_TIMEOUT = 30.0
ALIAS = "test-host"  # the host key's name in known_hosts, because addresses and ports change

# Options of every connection; a host's own options stand before these, and ssh takes the first of two.
CLIENT = {
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "GlobalKnownHostsFile": "/dev/null",
    "HostKeyAlias": ALIAS,
    "StrictHostKeyChecking": "yes",
    "BatchMode": "yes",
    "ConnectTimeout": "20",
    "UpdateHostKeys": "no",
    "KexAlgorithms": "curve25519-sha256",
}

# MaxStartups keeps its default, as most servers have it.
SERVER = """\
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
PrintLastLog no
AcceptEnv none
MaxSessions 100
LogLevel VERBOSE
"""


class CannotLogIn(Exception):
    """The server runs, but does not let the user in who runs it."""


class Host:
    """What a login finds at one host.

    commands: {name on its PATH: path of the program}. path: directories that come first on its PATH. shell: the login
    shell. before: a line of sh that runs before each command. rc: {name of a file in the home directory: text}. options:
    options of the ssh client for this host.
    """

    def __init__(self, commands=(), path=(), shell="/bin/sh", before="", rc=(), options=()):
        self.commands = dict(commands)
        self.path = [str(directory) for directory in path]
        self.shell = shell
        self.before = before
        self.rc = dict(rc)
        self.options = dict(options)


def program():
    """sshd's path, or None. It is in directories that only root has on the PATH."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def why_not():
    """None if a server can be started here, else what is missing."""
    if program() is None:
        return "there is no sshd (Debian: openssh-server)"
    for tool in ("ssh", "ssh-keygen", "setpriv"):
        if shutil.which(tool) is None:
            return f"there is no {tool} (Debian: openssh-client, util-linux)"
    return None


def stat_of(pid):
    """(name, state, parent) of a process, or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name, rest.split()[0], int(rest.split()[1])


class Server:
    """A running sshd. hosts: {name: Host}. elsewhere: {name: options of ssh}, more names for the
    first host: most of these options make a login fail.

    address: how the hosts' addresses begin; their last numbers are 1, 2 and so on. wrapper: the beginning of sshd's command
    line, for example to start it in another network namespace.
    """

    def __init__(self, hosts, elsewhere=(), address="127.0.0.", wrapper=()):
        self.directory = Path(tempfile.mkdtemp(prefix="sshd-"))  # short: sockets lie there, too
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.ssh_config = self.directory / "ssh_config"
        self._wrapper = list(wrapper)
        self._process = None
        self._addresses = {name: f"{address}{number}" for number, name in enumerate(hosts, 1)}
        try:
            for key in ("host_key", "key", "other_key"):
                self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.directory / key)
            host_key = (self.directory / "host_key.pub").read_text()
            other_key = (self.directory / "other_key.pub").read_text()
            (self.directory / "known_hosts").write_text(f"{ALIAS} {host_key}")
            (self.directory / "other_known_hosts").write_text(f"{ALIAS} {other_key}")
            shutil.copy(self.directory / "key.pub", self.directory / "authorized_keys")
            for name, host in hosts.items():
                self._furnish(name, host)
            self._start(hosts)
            self._write_ssh_config(hosts, dict(elsewhere))
            self._log_in(next(iter(hosts)))
        except BaseException:
            self.stop()
            raise

    # --- making ---------------------------------------------------------------------------------------------------

    def _run(self, *command):
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(map(str, command))}: status {done.returncode}: {done.stderr.strip()}")

    def _furnish(self, name, host):
        self.home(name).mkdir(parents=True)
        for file, text in host.rc.items():
            path = self.home(name) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        programs = self.home(name) / "bin"
        programs.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            if found:
                (programs / tool).symlink_to(found)
        for command, path in host.commands.items():
            (programs / command).symlink_to(path)
        # bash below sshd reads .bashrc if SHLVL is 0. The host's own shell gets 0 here; the shell of the machine's user,
        # which runs the ForceCommand, gets 1 from _sshd_config().
        run = f'exec env SHLVL=0 SHELL={host.shell} {host.shell} -c "$SSH_ORIGINAL_COMMAND"'
        lines = ["#!/bin/sh", host.before, run]
        entry = self.home(name) / "entry"
        entry.write_text("\n".join(filter(None, lines)) + "\n")
        entry.chmod(0o755)

    def home(self, name):
        """The home directory of the host `name`."""
        return self.directory / name

    def _sshd_config(self, hosts, port):
        lines = [f"ListenAddress {address}:{port}" for address in self._addresses.values()]
        lines += [
            f"HostKey {self.directory}/host_key",
            f"PidFile {self.directory}/sshd.pid",
            f"AuthorizedKeysFile {self.directory}/authorized_keys",
            # Without PAM an sshd without privileges takes our account for locked, because it cannot read whether it is.
            f"UsePAM {'no' if os.getuid() == 0 else 'yes'}",
            SERVER,
        ]
        for name, host in hosts.items():
            home = self.home(name)
            path = ":".join([*host.path, f"{home}/bin"])
            lines += [
                f"Match LocalAddress {self._addresses[name]}",
                f"  SetEnv SHLVL=1 HOME={home} PATH={path}",
                f"  ForceCommand exec {home}/entry",
            ]
        return "\n".join(lines) + "\n"

    def _start(self, hosts):
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd needs it; usually the init system makes it
        config = self.directory / "sshd_config"
        sshd = [*self._wrapper, program()]
        for _ in range(10):
            self.port = _free_port()
            text = self._sshd_config(hosts, self.port)
            # Newer servers refuse an address after failed logins, and here all clients have the same one. Older servers do
            # not know the option.
            for config_text in ("PerSourcePenalties no\n" + text, text):
                config.write_text(config_text)
                check = subprocess.run([program(), "-t", "-f", config], stdin=subprocess.DEVNULL, capture_output=True, text=True)
                if check.returncode == 0:
                    break
            else:
                raise RuntimeError(f"sshd does not take its configuration: {check.stderr}")
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *sshd, "-D", "-f", config, "-E", self.directory / "sshd.log"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if self._wait_ready():
                return
            self._process.wait()
        raise RuntimeError(f"sshd does not start: {self.log()}")

    def _wait_ready(self):
        deadline = time.monotonic() + START_TIMEOUT
        while self._process.poll() is None:
            text = _text_of(self.directory / "sshd.pid")
            if text.endswith("\n"):
                self.pid = int(text)
                return True
            if time.monotonic() > deadline:
                raise RuntimeError(f"sshd has not started within {START_TIMEOUT} seconds: {self.log()}")
            time.sleep(0.01)
        return False

    def _write_ssh_config(self, hosts, elsewhere):
        key = {"IdentityFile": f"{self.directory}/key"}  # ssh uses all it finds: as a default it would always be added
        first = next(iter(self._addresses.values()))
        entries = {name: {"HostName": self._addresses[name], **key, **host.options} for name, host in hosts.items()}
        for name, options in elsewhere.items():
            options = {name: str(value).format(directory=self.directory) for name, value in options.items()}
            entries[name] = {"HostName": first, **key, **options}
        known_hosts = {"UserKnownHostsFile": f"{self.directory}/known_hosts"}
        entries["*"] = {"Port": self.port, "User": self.user, **known_hosts, **CLIENT}
        lines = []
        for name, options in entries.items():
            lines += [f"Host {name}", *(f"  {key} {value}" for key, value in options.items())]
        self.ssh_config.write_text("\n".join(lines) + "\n")

    def _log_in(self, name):
        done = subprocess.run(self.command(name, "true"), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise CannotLogIn(f"sshd does not let {self.user} in here: {done.stderr.strip()}; it says: {self.log()[-500:]}")

    # --- using ----------------------------------------------------------------------------------------------------

    def spec(self, host, *keys):
        """The spec of a gateway to that host. As in a spec, options of ssh may stand before the name in `host`."""
        return "//".join([f"ssh={host}", f"ssh_config={self.ssh_config}", *keys])

    def command(self, host, *words):
        """The command line of an ssh client that runs `words` at that host."""
        return ["ssh", "-F", str(self.ssh_config), host, *words]

    def log(self):
        return _text_of(self.directory / "sshd.log")

    def sessions(self):
        """Process ids of all that runs at the hosts, also of sshd's own processes for the connections."""
        parents = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            stat = stat_of(name)
            if stat and stat[1] not in "ZX":
                parents[int(name)] = stat[2]
        found, grown = {self.pid}, True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found |= more
            grown = bool(more)
        return found - {self.pid}

    def session_of(self, pid):
        """sshd's own processes for the connection to which the host's process `pid` belongs."""
        found = []
        while pid > 1 and pid != self.pid:
            name, _, parent = stat_of(pid)
            if name.startswith("sshd"):
                found.append(pid)
            pid = parent
        if pid != self.pid or not found:
            raise LookupError("that process is none of this server's sessions")
        return found

    def stop(self):
        """End the server and all that runs below it."""
        if self._process is not None:
            left = self.sessions() if hasattr(self, "pid") else set()
            self._process.terminate()
            kill_all(left)
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def _free_port():
    """A port that is free on all loopback addresses at the moment."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        return listener.getsockname()[1]


def _text_of(path):
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
