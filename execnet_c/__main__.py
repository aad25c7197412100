"""python -m execnet_c check [SPEC...]: what to run first when a host does not answer.

python -m execnet_c run SCRIPT [ARG...]: a program that says `import execnet`, on this package.

python -m execnet_c socketserver [HOST:PORT]: serves gateways over sockets.
"""

import argparse
import sys

from . import __version__


def main():
    if sys.argv[1:2] == ["run"]:  # what follows belongs to the program, not to argparse
        from .tools.run import run

        return run(sys.argv[2:])
    if sys.argv[1:2] == ["socketserver"]:
        from .far.socketserver import main as serve

        return serve(sys.argv[2:], "python -m execnet_c socketserver")
    parser = argparse.ArgumentParser(prog="python -m execnet_c")
    parser.add_argument("--version", action="version", version=f"execnet_c {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    one = commands.add_parser(
        "check",
        help="start gateways and say what they are, or why they are not",
        description="Starts a gateway for each spec, side by side, and prints a line for each. The exit status is 0 if "
        "all of them came up.",
    )
    specs = one.add_argument("specs", nargs="*", metavar="SPEC", default=["popen"])
    specs.help = "as for makegateway: popen, ssh=user@host, ... (popen)"
    commands.add_parser("run", help="run a program that says `import execnet` on this package")
    commands.add_parser("socketserver", help="serve gateways over sockets (socket=HOST:PORT)")
    options = parser.parse_args()
    if not hasattr(options, "specs"):
        parser.print_help()
        return 0
    import warnings

    from .tools.check import check
    from .cores import say_once

    warnings.formatwarning = lambda message, *_: f"{message}\n"  # without a source line: none of the user's causes it
    say_once()
    try:
        return 0 if check(options.specs) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
