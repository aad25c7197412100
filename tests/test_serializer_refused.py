"""What dumps() and loads() of both cores refuse, and how the refusal reads."""

import copy
import enum
import importlib.util
import io
import pickle
import subprocess
import sys

import pytest

import execnet_c
from execnet_c import _core
from serializers import Unsendable, ser_fixture  # noqa: F401 (fixtures)

GENERAL = "; send pickle.dumps() of it"


class TestVersion:
    def test_wrong(self, ser):
        with pytest.raises(ser.LoadError, match=r"^wrong dumpformat version b'\\x03'$"):
            ser.loads(b"\x03LQ")
        with pytest.raises(ser.LoadError, match=r"^wrong dumpformat version b'\\x03'$"):
            ser.load(io.BytesIO(b"\x03LQ"))

    def test_missing(self, ser):
        for call in (lambda: ser.loads(b""), lambda: ser.load(io.BytesIO())):
            with pytest.raises(ser.LoadError, match=r"^wrong dumpformat version b''$") as caught:
                call()
            assert isinstance(caught.value, EOFError)


class TestUnsendable:
    @pytest.mark.parametrize(
        "make, path",
        [
            (lambda x: x, ""),
            (lambda x: [x], " at [0]"),
            (lambda x: [1, 2, 3, {"key": [x]}], " at [3]['key'][0]"),
            (lambda x: (1, 2, x), " at [2]"),
            (lambda x: ([], x), " at [1]"),
            (lambda x: [[], [[1], (2, [x])]], " at [1][1][1][0]"),
            (lambda x: {1: 2, (1, x): 3}, " at <key>[1]"),
            (lambda x: {x: 3}, " at <key>"),
            (lambda x: {x}, " at <member>"),
            (lambda x: [frozenset([(x,)])], " at [0]<member>[0]"),
            (lambda x: {None: {2.5: {b"b": {True: x}}}}, " at [None][2.5][b'b'][True]"),
            (lambda x: {(1, 2): x}, " at [<tuple>]"),
            (lambda x: {"k" * 100: x}, " at ['" + "k" * 40 + "'...]"),
            (lambda x: {10**4000: {"a": x}}, f" at [{10**4000}]['a']"),
        ],
    )
    def test_text_names_type_and_place(self, ser, make, path):
        with pytest.raises(ser.DumpError) as caught:
            ser.dumps(make(Unsendable()))
        assert str(caught.value) == f"can't serialize {Unsendable}{path}{GENERAL}"

    def test_a_long_path_shows_its_ends(self, ser):
        value = [Unsendable()]
        for _ in range(500):
            value = [0, value]
        with pytest.raises(ser.DumpError) as caught:
            ser.dumps(value)
        assert str(caught.value) == f"can't serialize {Unsendable} at " + "[1]" * 12 + "..." + "[1]" * 11 + "[0]" + GENERAL

    @pytest.mark.parametrize("base", [int, float, complex, str, bytes, list, tuple, dict, set, frozenset])
    def test_subclasses(self, ser, base):
        kind = type("Derived", (base,), {})
        with pytest.raises(ser.DumpError, match="can't serialize <class '.*Derived'> at"):
            ser.dumps([kind()])

    def test_enum_members(self, ser):
        with pytest.raises(ser.DumpError):
            ser.dumps(enum.IntEnum("Colour", "red").red)

    @pytest.mark.parametrize("name", ["list", "int", "bool", "str", "dict", "NoneType", "Channel", "long"])
    def test_strangers_of_a_known_name(self, ser, name):
        for stranger in (type(name, (), {}), type(name, (list,), {"__module__": "builtins"})):
            with pytest.raises(ser.DumpError, match="^can't serialize <class .* name with the known type"):
                ser.dumps(stranger())

    @pytest.mark.parametrize("value", [bytearray(b"x"), memoryview(b"x"), range(3), object(), len, Ellipsis, type])
    def test_other_builtins(self, ser, value):
        with pytest.raises(ser.DumpError, match="^can't serialize <class"):
            ser.dumps(value)

    def test_dump_writes_nothing(self, ser):
        sink = io.BytesIO()
        with pytest.raises(ser.DumpError):
            ser.dump(sink, [1, Unsendable()])
        assert sink.getvalue() == b""


NUMPY = """
import numpy
from SERIALIZER import DumpError, dumps, loads

for value in (numpy.int64(1), numpy.float64(1), numpy.str_("a"), numpy.zeros(1)):
    try:
        dumps(value)
    except DumpError:
        continue
    raise AssertionError(value)
# Before numpy 2 its bool had a name of its own, and was refused.
if type(numpy.True_).__name__ == "bool":
    assert loads(dumps([numpy.True_, numpy.False_])) == [True, False]
"""


def test_numpy(ser):
    """In a process of its own: numpy leaves threads behind."""
    if importlib.util.find_spec("numpy") is None:
        pytest.skip("there is no numpy here")
    program = NUMPY.replace("SERIALIZER", ser.__name__)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


class TestErrors:
    def test_classes(self, ser):
        assert issubclass(ser.DumpError, ser.DataFormatError) and issubclass(ser.LoadError, ser.DataFormatError)
        assert issubclass(ser.TruncatedError, (ser.LoadError,)) and issubclass(ser.TruncatedError, EOFError)
        assert ser.DataFormatError.__bases__ == (Exception,)
        for cls in (ser.DataFormatError, ser.DumpError, ser.LoadError, ser.TruncatedError):
            assert cls.__module__ == "execnet_c"
            assert cls.__doc__ == getattr(_core, cls.__name__).__doc__

    def test_classes_of_the_package(self):
        assert issubclass(execnet_c.TimeoutError, OSError)
        assert issubclass(execnet_c.GatewayDied, EOFError) and issubclass(execnet_c.GatewayDied, OSError)
        for cls in (execnet_c.DumpError, execnet_c.LoadError, execnet_c.RemoteError, execnet_c.GatewayDied):
            assert cls.__module__ == "execnet_c"
            assert cls.__doc__

    def test_gateway_died_holds_an_errno(self):
        error = execnet_c.GatewayDied(104, "killed by SIGKILL")
        assert error.errno == 104 and "killed by SIGKILL" in str(error)
        assert str(execnet_c.GatewayDied("gone")) == "gone"

    def test_remote_error(self, capsys):
        error = execnet_c.RemoteError("Traceback:\nValueError: x")
        assert error.formatted == str(error) == "Traceback:\nValueError: x"
        assert repr(error) == "RemoteError: Traceback:\nValueError: x"
        error.warn()
        text = capsys.readouterr().err
        assert text.startswith("[") and text.endswith("] Warning: unhandled RemoteError: Traceback:\nValueError: x\n")
        execnet_c.RemoteError("keyboard-interrupted").warn()
        assert capsys.readouterr().err == ""

    def test_remote_error_without_stderr(self, monkeypatch):
        monkeypatch.setattr(sys, "stderr", None)
        execnet_c.RemoteError("x").warn()

    def test_remote_error_arguments(self):
        assert execnet_c.RemoteError(formatted="x").formatted == "x"
        for args in ((), (1, 2)):
            with pytest.raises(TypeError):
                execnet_c.RemoteError(*args)

    @pytest.mark.parametrize("make", [lambda: execnet_c.RemoteError("x"), lambda: execnet_c.RemoteError(formatted="x")])
    def test_remote_error_is_copied(self, make):
        error = make()
        error.note = 1
        for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(other) is execnet_c.RemoteError
            assert other.formatted == "x" and other.note == 1

    def test_remote_error_is_subclassed(self):
        class Mine(execnet_c.RemoteError):
            def __init__(self, a, b):
                super().__init__(a + b)

        error = Mine("x", "y")
        assert str(error) == "xy" and repr(error) == "Mine: xy"
        with pytest.raises(execnet_c.RemoteError):
            raise error
