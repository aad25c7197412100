"""What travels to far ends that have no package: every module that may, and when.

Over there they are one flat package, `_execnet_c`, whatever folder they have here. All of this runs on Python 3.8.
"""

import os
import sys

# The folders of this package that they come from; "" is its top.
FOLDERS = {
    "": "cores gateway_base pytest_plugin xspec",
    "common": "channelfile errors trace",
    "models": "execmodel greenlets mainthread native registry",
    "twin": "pychannel pycore pylaunch pynear pypump pyreader pyrelay pyserializer pytasks pywatch pywire",
    "far": "alias socketserver tls worker",
}
FOLDER_OF = {name: folder for folder, names in FOLDERS.items() for name in names.split()}

# The text that makes a Python a worker (see pack.py) has these, in the order in which they need each other. Later, and
# only to who needs it, go: greenlets with the execution model (near/bootstrap.py); pylaunch and pyrelay to a gateway in
# between (near/via.py); socketserver and tls for installvia= (near/sockets.py); alias, gateway_base, pytest_plugin,
# registry, xspec and the rest of pyserializer to the workers of a program that has installed us as execnet (alias.py). What
# rsync runs over there is a task of its own, rsync_remote.py.
FIRST = ("mainthread", "native", "errors", "channelfile", "trace", "pypump", "pyserializer", "pywire")
FIRST += ("pychannel", "pywatch", "pytasks", "pynear", "pyreader", "pycore", "cores", "execmodel", "worker")
MADE_UP = {
    "native": "import os, select\nLONGEST_SLEEP = 5.0\nfrom time import sleep\nunpatched = __import__\n"
    "from _thread import RLock, allocate_lock, get_ident, start_new_thread",
    "cores": "from . import pycore as module\nfrom _thread import get_ident\ncore = 'Python'\n"
    "main_thread_ident = lambda n=get_ident(): n",
    "pynear": "class NearEnd:\n 0",
}
# What only near ends need stays here, and what the C core's far ends do, or those that are sent it beside the text.
NEAR = {
    "errors": "said_by",
    "pychannel": "RemoteError.__getattr__ Channel._await_item",
    "pyserializer": "dump dumps load loads _load_versioned",
    "pycore": "_main_thread_ident",
    "pywire": "Writer.end",
    "worker": "_move _serve_aloud _is_lent _say_again",
}
# What is called until a task's first word is out; a test compares.
HOT = {
    "mainthread": "_Finder.find_spec",
    "execmodel": "_module",
    "worker": "main _begin _serve _take_streams _run _Tasks.__init__ _Tasks.serve_main _Tasks._serve_one _Tasks.run "
    "_Tasks._start_spare _Tasks._ensure_spare _Tasks._serve_spare",
    "pycore": "Gateway._serve Gateway._connect Gateway._hello Gateway._check_usable Gateway._wait Gateway._wake "
    "Gateway._work_off Gateway._needs_callback Gateway._apply Gateway._send "
    "Gateway._load_plain Gateway._set_facts Gateway._channel Gateway._open",
    "pyreader": "Reader._read Reader._feed Reader._file",
    "pytasks": "Tasks._next_task Tasks._queue_task",
    "pychannel": "until_of Chan.__init__ Chan.holder Channel._new Channel.send",
    "pywatch": "start reap",
    "pypump": "Pump.__init__ Pump.watch Pump.post Pump._start Pump._open Pump._take_down Pump._run Pump._go_round _guarded "
    "file_of own is_ours check pipe lifted",
    "pyserializer": "load_plain dump_item _dump_plain",
    "pywire": "frame Batch.__init__ Batch.rest Writer.__init__ Writer.send Writer.send_message Writer.write",
}
# Code is larger than source: those that no longer fit into the text travel as source. In this order what fits saves the
# most: milliseconds to compile pycore 1.3, pychannel 0.4, pyserializer 0.4.
CODED = ("pycore", "pychannel", "pyserializer", "pywatch", "pypump", "pyreader", "pywire", "worker", "pytasks")


def file_name(as_code):
    """Where an installed package has the text."""
    return "far_end." + (sys.implementation.cache_tag if as_code else "source")


def module_source(name):
    """Of a module that travels, which a far end may have named. Over there all are in one package."""
    import re

    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), FOLDER_OF[name])
    source = __loader__.get_data(os.path.join(folder, f"{name}.py")).decode()
    return re.sub(rf"\bfrom \.+(?:(?:{'|'.join(filter(None, FOLDERS))})\b\.?)?", "from .", source)
