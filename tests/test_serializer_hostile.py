"""What a hostile peer may send, to either core: every refusal by its text, and none costs more than what was sent."""

import gc
import io
import random
import struct
import subprocess
import sys

import pytest

from execnet_c import _core
from execnet_c.twin import pyserializer

I4_MAX = 2**31 - 1


@pytest.fixture(params=[_core, pyserializer], ids=["C", "Python"])
def ser(request):
    return request.param


def i4(n):
    return struct.pack("!i", n)


def refused(ser, program, text, error=None, cause=None):
    """Both loads and load refuse it, with the same class and text, unless only one can know."""
    data = b"\x02" + program
    with pytest.raises(ser.LoadError) as caught:
        ser.loads(data)
    assert type(caught.value) is (error or ser.LoadError)
    assert str(caught.value) == text
    assert type(caught.value.__cause__) is (cause or type(None))
    with pytest.raises(ser.LoadError):
        ser.load(io.BytesIO(data))


class TestRefusals:
    def test_unknown_opcode(self, ser):
        refused(ser, b"ZQ", "unknown opcode b'Z' at offset 1 - wire protocol corruption?")
        refused(ser, b"L\x00Q", "unknown opcode b'\\x00' at offset 2 - wire protocol corruption?")

    @pytest.mark.parametrize("op", [b"A", b"N", b"M", b"S", b"H", b"I", b"K", b"@", b"O", b"E"])
    @pytest.mark.parametrize("n", [-1, -(2**31)])
    def test_negative_length(self, ser, op, n):
        refused(ser, b"L" + op + i4(n) + b"xxxxQ", "negative length at offset 2")

    @pytest.mark.parametrize("op", [b"A", b"N", b"M", b"S", b"H", b"I"])
    @pytest.mark.parametrize("n", [3, I4_MAX])
    def test_length_beyond_the_end(self, ser, op, n):
        refused(ser, op + i4(n) + b"xQ", "input ends at offset 8, within what begins at offset 1", ser.TruncatedError)

    @pytest.mark.parametrize("op", [b"@", b"O", b"E"])
    @pytest.mark.parametrize("n", [3, I4_MAX])
    def test_more_members_than_objects(self, ser, op, n):
        refused(ser, b"LL" + op + i4(n) + b"Q", "too few objects on the stack at offset 3")

    @pytest.mark.parametrize("n", [2, 1000, I4_MAX])
    def test_list_longer_than_the_input(self, ser, n):
        refused(
            ser,
            b"K" + i4(n) + b"F\0\0\0\0LPQ",
            "input ends at offset 14, too early to fill the list that begins at offset 1",
            ser.TruncatedError,
        )

    def test_lists_that_claim_the_same_bytes(self, ser):
        program = (b"K" + i4(10)) * 30 + b"L" * 70 + b"Q"
        with pytest.raises(ser.TruncatedError, match="too early to fill the list"):
            ser.loads(b"\x02" + program)

    def test_setitem(self, ser):
        refused(ser, b"LLPQ", "not enough items for setitem at offset 3")
        for target in (b"L", b"F\0\0\0\1", b"N\0\0\0\2ab", b"@\0\0\0\0", b"O\0\0\0\0", b"A\0\0\0\1x"):
            program = target + b"F\0\0\0\0LPQ"
            refused(ser, program, f"setitem on what is neither a list nor a dict at offset {len(program) - 1}")

    @pytest.mark.parametrize("index", [1, -2, I4_MAX, -(2**31)])
    def test_list_index_out_of_range(self, ser, index):
        refused(ser, b"K\0\0\0\1F" + i4(index) + b"LPQ", "list index out of range at offset 12")

    def test_list_index_of_other_types(self, ser):
        for key in (b"L", b"N\0\0\0\1a", b"D\0\0\0\0\0\0\0\0", b"J", b"K\0\0\0\0"):
            program = b"K\0\0\0\1" + key + b"LPQ"
            refused(ser, program + b"....", f"list index is not an int at offset {len(program) - 1}")
        program = b"K\0\0\0\1H\0\0\0\x1499999999999999999999LPQ"
        with pytest.raises(ser.LoadError, match="^bad list index at offset 32"):
            ser.loads(b"\x02" + program + b"....")

    def test_unhashable(self, ser):
        def why(kind, use, whole=None):
            text = f"unhashable type: '{kind}'"
            return f"cannot use '{whole or kind}' as a {use} ({text})" if sys.version_info >= (3, 14) else text

        refused(ser, b"JJLPQ", f"bad dict key at offset 4: {why('dict', 'dict key')}", cause=TypeError)
        refused(ser, b"JK\0\0\0\0LPQ", f"bad dict key at offset 8: {why('list', 'dict key')}", cause=TypeError)
        refused(ser, b"JE\0\0\0\1Q", f"bad set member at offset 2: {why('dict', 'set element')}", cause=TypeError)
        refused(ser, b"J@\0\0\0\1O\0\0\0\1Q", f"bad set member at offset 7: {why('dict', 'set element', 'tuple')}", cause=TypeError)

    @pytest.mark.parametrize("op", [b"N", b"S"])
    @pytest.mark.parametrize(
        "text", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"x" * 50 + b"\x80"]
    )
    def test_not_utf8(self, ser, op, text):
        with pytest.raises(ser.LoadError, match="^bad UTF-8 at offset 2: 'utf-8' codec") as caught:
            ser.loads(b"\x02L" + op + i4(len(text)) + text + b"Q")
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)

    def test_not_utf8_once_the_cache_is_on(self, ser):
        """Short strings that were seen before take another way."""
        words = b"".join(b"N\0\0\0\3ab" + bytes([97 + i % 20]) for i in range(200))
        with pytest.raises(ser.LoadError, match="^bad UTF-8"):
            ser.loads(b"\x02" + words + b"N\0\0\0\3ab\xc3@" + i4(201) + b"Q")
        assert ser.loads(b"\x02" + words + b"N\0\0\0\3a\xc3\xa9@" + i4(201) + b"Q")[200] == "a\xe9"

    @pytest.mark.parametrize("digits", [b"", b"x", b"1x", b"-", b"--1", b"1\x002", b"1_", b"0x10", b"\xff", b"1 2"])
    def test_not_digits(self, ser, digits):
        text = "^bad int at offset 1: (invalid literal for int|.utf-8. codec)"
        with pytest.raises(ser.LoadError, match=text) as caught:
            ser.loads(b"\x02H" + i4(len(digits)) + digits + b"Q")
        assert isinstance(caught.value.__cause__, ValueError)

    def test_stop(self, ser):
        refused(ser, b"Q", "STOP without exactly one object at offset 1")
        refused(ser, b"LLQ", "STOP without exactly one object at offset 3")
        refused(ser, b"L", "input ends at offset 2, without STOP at offset 2", ser.TruncatedError)
        refused(ser, b"", "input ends at offset 1, without STOP at offset 1", ser.TruncatedError)

    def test_channels_need_a_gateway(self, ser):
        refused(ser, b"B\0\0\0\1Q", "a channel, where none can be at offset 1")

    def test_deep_keys(self, ser):
        """CPython hashes and compares on the C stack."""

        def nest(n):
            return b"@\0\0\0\0" + b"@\0\0\0\1" * (n - 1)

        assert len(ser.loads(b"\x02J" + nest(1000) + b"LPQ")) == 1
        with pytest.raises(ser.LoadError, match="^dict key nested too deeply"):
            ser.loads(b"\x02J" + nest(1001) + b"LPQ")
        with pytest.raises(ser.LoadError, match="^set member nested too deeply"):
            ser.loads(b"\x02" + nest(1001) + b"O\0\0\0\1Q")
        with pytest.raises(ser.LoadError, match="^set member nested too deeply"):
            ser.loads(b"\x02E\0\0\0\0" + b"E\0\0\0\1" * 100_000 + b"Q")

    def test_equal_deep_keys(self, ser):
        """Equal keys are compared, and Python's own limit of recursion is below ours."""
        deep = b"@\0\0\0\0" + b"@\0\0\0\1" * 999
        try:
            assert len(ser.loads(b"\x02J" + (deep + b"LP") * 2 + b"Q")) == 1
        except ser.LoadError as error:
            assert isinstance(error.__cause__, RecursionError)


class TestListSlots:
    def test_unset_slots_are_none(self, ser):
        assert ser.loads(b"\x02K\0\0\0\3F\0\0\0\1RPQ" + b"." * 20) == [None, True, None]
        assert ser.loads(b"\x02K\0\0\0\2K\0\0\0\2@\0\0\0\2Q" + b"." * 40) == ([None, None], [None, None])
        assert ser.loads(b"\x02JLK\0\0\0\2PQ" + b"." * 40) == {None: [None, None]}

    def test_a_slot_set_twice(self, ser):
        assert ser.loads(b"\x02K\0\0\0\2F\0\0\0\0N\0\0\0\1aPF\0\0\0\0N\0\0\0\1bPQ") == ["b", None]

    def test_python_indices(self, ser):
        assert ser.loads(b"\x02K\0\0\0\2F\xff\xff\xff\xffRPCRPQ....") == [True, True]
        assert ser.loads(b"\x02K\0\0\0\2H\0\0\0\x02-1RPQ....") == [None, True]

    def test_nobody_sees_a_list_before_it_is_complete(self, ser):
        """The collector runs in the middle of a load; what it lists has no empty slot to trip over."""
        item = b"K" + i4(300) + b"".join(b"F" + i4(i) + b"J" + b"P" for i in range(300))
        data = b"\x02K" + i4(50) + b"".join(b"F" + i4(i) + item + b"P" for i in range(50)) + b"Q"
        seen = []

        def look(phase, info):
            seen.append(sum(len(repr(o)) for o in gc.get_objects(0) if type(o) is list and len(o) in (50, 300)))

        gc.callbacks.append(look)
        before = gc.get_threshold()
        gc.set_threshold(50)
        try:
            value = ser.loads(data)
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(look)
        assert value == [[{}] * 300] * 50
        gc.collect()
        assert seen or sys.version_info >= (3, 12)  # since 3.12 it waits for Python code to run


class Reader:
    """Counts what was asked for, and gives no more than there is."""

    def __init__(self, data):
        self.data = data
        self.at = 0
        self.asked = []

    def read(self, n):
        self.asked.append(n)
        piece = self.data[self.at : self.at + n]
        self.at += len(piece)
        return piece


class TestLoadFromStream:
    def test_it_takes_one_object_at_a_time(self, ser):
        values = [None, [1, {"a": (2.5, "x" * 100_000)}], b"y" * 300_000, 2**100, 1j, {"z"}, frozenset(), True]
        stream = Reader(b"".join(map(ser.dumps, values)))
        assert [ser.load(stream) for _ in values] == values
        assert stream.at == len(stream.data)
        assert sum(stream.asked) == len(stream.data)
        with pytest.raises(EOFError):
            ser.load(stream)

    @pytest.mark.parametrize("op", [b"A", b"N", b"M", b"S", b"H", b"I"])
    def test_a_length_that_lies(self, ser, op):
        stream = Reader(b"\x02" + op + i4(I4_MAX) + b"x" * 200_000)
        with pytest.raises(ser.TruncatedError):
            ser.load(stream)
        assert max(stream.asked) <= 2 * 200_000

    def test_it_stops_at_what_cannot_be_right(self, ser):
        for program in (b"Z", b"A" + i4(-1), b"L\0", b"Q"):
            stream = Reader(b"\x02" + program + b"following")
            with pytest.raises(ser.LoadError):
                ser.load(stream)
            assert stream.data[stream.at :] == b"following"

    def test_short_reads_are_the_end(self, ser):
        class Short(Reader):
            def read(self, n):
                return super().read(n if n == 1 else n - 1)

        with pytest.raises(ser.TruncatedError):
            ser.load(Short(ser.dumps([1, 2, 3])))

    @pytest.mark.parametrize("piece", ["text", None, bytearray(b"x"), 1, [2]])
    def test_what_read_returns(self, ser, piece):
        class Odd:
            def read(self, n):
                return piece

        with pytest.raises(TypeError, match=r"^read\(\) should return bytes, not "):
            ser.load(Odd())

    def test_more_than_was_asked_for(self, ser):
        class Generous:
            def read(self, n):
                return b"\x02L"

        with pytest.raises(ValueError, match=r"^read\(1\) returned 2 bytes$"):
            ser.load(Generous())

    def test_errors_of_read_pass_through(self, ser):
        class Broken:
            left = 3

            def read(self, n):
                self.left -= 1
                if not self.left:
                    raise OSError("broken")
                return {1: b"\x02"}.get(n, b"x" * n) if self.left == 2 else b"D"

        with pytest.raises(OSError, match="^broken$"):
            ser.load(Broken())
        with pytest.raises(AttributeError):
            ser.load(object())


CODE = """
import resource, struct, sys
from SERIALIZER import LoadError, loads

def i4(n):
    return struct.pack("!i", n)

size = 1_000_000
claims = size // 5
programs = {
    "lists": b"".join(b"K" + i4((size - 5 * i) // 7 - 1) for i in range(claims)),
    "one list": (b"K" + i4(size // 7 - 2)).ljust(size, b"L"),
    "tuples": b"L" * (size // 2) + (b"@" + i4(1)) * (size // 10),
    "dicts": b"J" * size,
    "sets": (b"O" + i4(0)) * claims,
    "big strings": (b"A" + i4(2**31 - 1)) * claims,
    "digits": b"H" + i4(size) + b"9" * size,
    "nested": (b"K" + i4(1) + b"F" + i4(0)) * (size // 10),
    "empty lists": (b"K" + i4(0)) * claims,
}
program = programs[sys.argv[1]]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    loads(b"\\x02" + program)
except LoadError:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) * 1024 / size)
"""


@pytest.mark.parametrize(
    "name, times",
    [
        ("lists", 10),
        ("one list", 30),
        ("tuples", 40),
        ("dicts", 130),
        ("sets", 90),
        ("big strings", 10),
        ("digits", 10),
        ("nested", 40),
        ("empty lists", 60),
    ],
)
def test_memory_for_a_megabyte(ser, name, times):
    """How much memory a megabyte of the worst makes us take, as a multiple of that megabyte."""
    program = CODE.replace("SERIALIZER", ser.__name__)
    run = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < times


def test_noise(ser):
    """A hundred thousand times nonsense in the opcodes' alphabet: an object or a LoadError, always."""
    random.seed(20)
    sample = bytearray(ser.dumps([1, "abc", {"k": [(1, "abc"), {2}]}, frozenset([2.5]), 2**40, [None, b"x"]]))
    alphabet = b"@ABCDEFGHIJKLMNOPQRST\0\0\0\0\0\0\0\1\2\3\xff"
    fine = 0
    for n in range(100_000):
        if n % 2:
            data = bytes(random.choices(alphabet, k=random.randrange(40)))
        else:
            data = bytearray(sample)
            for _ in range(random.randrange(1, 4)):
                data[random.randrange(len(data))] = random.choice(alphabet)
            data = bytes(data[1:])
        try:
            ser.loads(b"\x02" + data)
            fine += 1
        except ser.LoadError:
            pass
    assert 0 < fine < 100_000
