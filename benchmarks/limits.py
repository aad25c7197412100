"""Runs the C programs of `limits/`, which show what the system gives at best. The Makefile compiles them."""

import os
import subprocess

from base import Missing


def run(setting, program, *arguments):
    """Run a C program; returns the number that it prints."""
    path = os.path.join(setting.limits or "", program)
    if setting.limits is None or not os.path.exists(path):
        raise Missing("the C programs are not compiled, or --limits does not say where: make bench does both")
    done = subprocess.run([path, *map(str, arguments)], stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout)
