"""python -m execnet_c check SPEC...: what to run first when a host does not answer."""

import argparse
import sys

from .check import check


def main():
    parser = argparse.ArgumentParser(prog="python -m execnet_c")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser(
        "check",
        help="start gateways and say what they are, or why they are not",
        description="Starts a gateway for each spec, side by side, and prints a line for each. The exit status is 0 if "
        "all of them came up.",
    )
    one.add_argument("specs", nargs="+", metavar="SPEC", help="as for makegateway: popen, ssh=user@host, ...")
    options = parser.parse_args()
    try:
        return 0 if check(options.specs) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
