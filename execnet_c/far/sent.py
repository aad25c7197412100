"""Lists the modules that are sent to far ends without the package, and when each one is sent.

At the far end all of them are modules of one package, `_execnet_c`, which has no subpackages. All must run on Python 3.8.
"""

import os
import sys

# Folder of this package -> the modules in it that may be sent; "" is the top folder.
FOLDERS = {
    "": "cores gateway_base pytest_plugin worker xspec",
    "common": "channelfile errors pickles plain trace",
    "models": "execmodel greenlets locks mainthread native registry",
    "twin": "pychannel pycore pyflow pylaunch pynear pynotify pypickled pypump pyreader pyrelay pyserializer pytasks pywatch pywire",
    "far": "alias socketserver tls",
}
FOLDER_OF = {name: folder for folder, names in FOLDERS.items() for name in names.split()}

# The modules in the text that makes a Python a worker (see pack.py), each behind those that it imports. The others are
# sent later, and only to far ends that need them: greenlets, for an execution model of greenlets (near/bootstrap.py);
# pylaunch and pyrelay, to the gateway in between for via= (near/via.py); socketserver and tls, for installvia=
# (near/sockets.py); alias, gateway_base, pytest_plugin, registry, xspec and the rest of pyserializer, if the program has
# called install_as_execnet() (alias.py). rsync sends rsync_remote.py as a task.
FIRST = ("mainthread", "native", "pypump", "pyserializer", "pywire", "pychannel", "pywatch", "pytasks", "pynear")
FIRST += ("pyreader", "pycore", "cores", "worker")
# The modules in that text that are loaded when something of them is used: no first word needs them. They import only what is
# built into each Python, because a task may have changed sys.path by then.
LATE = ("locks", "errors", "channelfile", "trace", "execmodel", "pyflow", "pynotify", "pickles", "pypickled", "plain")
MADE_UP = {  # what stands in the text for these modules, instead of their own source
    "native": "import os, select, sys\nLONGEST_SLEEP = 5.0\nfrom time import sleep\nunpatched = __import__\n"
    "from _thread import RLock, allocate_lock, get_ident, start_new_thread\n"
    "if sys.version_info[:2] == (3, 14):\n from .locks import safe\n RLock, allocate_lock = safe(RLock), safe(allocate_lock)",
    "cores": "from . import pycore as module\nfrom _thread import get_ident\ncore = 'Python'\n"
    "main_thread_ident = lambda n=get_ident(): n",
    "pynear": "class NearEnd:\n 0",
}
# Functions that are left out of the text: only near ends need them, or only far ends on the C core.
NEAR = {
    "pychannel": "RemoteError.__getattr__ Channel._await_item Channel._send_soon Channel.interrupt",
    "pyserializer": "dump dumps load loads _load_versioned",
    "pycore": "_main_thread_ident",
    "pywire": "Writer.end",
    "worker": "_move _copy_out",
}
# Functions that are called before a task has sent its first item; tests/test_text.py compares the list with what runs.
HOT = {
    "mainthread": "_Finder.find_spec",
    "worker": "main _begin _serve _serve_lent _is_lent _take_streams _run _Tasks.__init__ _Tasks.serve_main _Tasks._serve_one _Tasks.run "
    "_Tasks._start_spare _Tasks._ensure_spare _Tasks._serve_spare",
    "pycore": "Gateway._serve Gateway._connect Gateway._hello Gateway._check_usable Gateway._wait Gateway._wake "
    "Gateway._work_off Gateway._needs_callback Gateway._apply Gateway._send "
    "Gateway._encoded Gateway._set_facts Gateway._channel Gateway._open Gateway._send_item",
    "pyreader": "Reader._read Reader._feed Reader._file Reader._load_plain",
    "pytasks": "compiled _by_exec _named Tasks._next_task Tasks._queue_task Tasks._take_interrupt",
    "pychannel": "until_of Chan.__init__ Chan.holder Channel._new Channel.send Channel._send",
    "pywatch": "start reap",
    "pypump": "_after_fork Pump.__init__ Pump.watch Pump.post Pump._start Pump._open Pump._take_down Pump._run Pump._go_round "
    "_guarded file_of own is_ours check pipe lifted",
    "pyserializer": "load_plain dump_item _dump_plain",
    "pywire": "frame tally Batch.__init__ Batch.rest Writer.__init__ Writer.send Writer.send_message Writer.write",
}
# Modules that are sent as code objects, as many as fit: code is larger than source, so the others are sent as source. Those
# that take longest to compile come first: pycore 1.3 ms, pychannel 0.4 ms, pyserializer 0.4 ms.
CODED = ("pycore", "pychannel", "pyserializer", "pywatch", "pypump", "pyreader", "pywire", "worker", "pytasks")


def file_name(as_code):
    """The name of the file in which an installed package has the text."""
    return "far_end." + (sys.implementation.cache_tag if as_code else "source")


def module_source(name):
    """The source of a module of FOLDERS, with its imports changed to the one package that far ends have. A far end may
    have asked for `name`."""
    import re

    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), FOLDER_OF[name])
    source = __loader__.get_data(os.path.join(folder, f"{name}.py")).decode()
    return re.sub(rf"\bfrom \.+(?:(?:{'|'.join(filter(None, FOLDERS))})\b\.?)?", "from .", source)
