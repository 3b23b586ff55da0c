"""Scan of the pickle in a checkpoint before it is loaded: a short list of opcodes and globals, and every view's bounds.

`torch.load(weights_only=True)` runs no code of a stranger. A pickle can still ask it for memory or time without end,
for tensors of uninitialised memory, or for attributes that break the result. The scan interprets a pickle without
making any of its objects, and refuses what no state dict needs.
"""

import functools
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

MOST_PICKLE_BYTES = 4 * 2**20
"""Far above the pickle of any checkpoint, which holds no weights."""

_MOST_CALLS = 50_000
# Numbers can be chosen so that all have one hash, which texts cannot.
_MOST_NUMBERED = 10_000
_MOST_DIMENSIONS = 64

# Arguments may be held by the memo, and each call copies them.
_MOST_ARGUMENTS = MOST_PICKLE_BYTES

# A tuple is hashed anew each time.
_LONGEST_KEY = 64

_STORAGE_BYTES = {
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
    "torch.ComplexFloatStorage": 8,
    "torch.ComplexDoubleStorage": 16,
}
"""Types of storages, each with the bytes of one number."""

_DTYPES = {f"torch.float{bits}" for bits in (16, 32, 64)} | {f"torch.int{bits}" for bits in (8, 16, 32, 64)}
_DTYPES |= {"torch.bfloat16", "torch.uint8", "torch.bool", "torch.complex64", "torch.complex128"}

_ORDERED_DICT = "collections.OrderedDict"


class ScanError(ValueError):
    """A pickle that is not loaded; the message says why."""


class ScannedPickle(NamedTuple):
    """Content of a pickle, as far as it is of account."""

    end: int
    """position after the pickle"""
    storages: Mapping[str, int]
    """storage key -> bytes of its numbers"""
    keys: tuple[str, ...]
    """the texts of a list of texts, else none"""
    number: int | None
    """the number of a pickle that is one"""


class _Global(NamedTuple):
    """A name of a module, which a pickle may call or hold."""

    name: str


class _Storage(NamedTuple):
    """A storage."""

    length: int
    """its numbers"""


class _Opaque:
    """A value that is of no account: a tensor, some bytes."""


class _List:
    """A list, of which only texts are kept."""

    def __init__(self):
        self.texts: list[str] = []
        self.length = 0
        self.is_flat = True
        """whether it holds scalars alone"""


class _Dict:
    """A dictionary, of which only the keys that are texts are kept."""

    def __init__(self, is_ordered: bool = False):
        self.is_ordered = is_ordered
        self.keys: set[object] = set()
        self.is_full = False


_OPAQUE = _Opaque()
_SCALARS = (str, int, float, type(None))


@functools.lru_cache(maxsize=16)
def scan_archived_pickle(content: bytes) -> Mapping[str, int]:
    """Return storage key -> bytes of the pickle of an archive; the checkpoints of a zoo mostly share one pickle.

    Raises:
        ScanError: the pickle is damaged, or asks for what no state dict needs.
    """
    return scan_pickle(content, 0, is_archived=True).storages


def scan_pickle(content: bytes, start: int, is_archived: bool = False) -> ScannedPickle:
    """Scan a pickle.

    Args:
        content: bytes that hold the pickle.
        start: its position.
        is_archived: True in the archives of today, False in files of torch before 1.6.

    Raises:
        ScanError: the pickle is damaged, or asks for what no state dict needs.
    """
    if is_archived and len(content) > MOST_PICKLE_BYTES:
        raise ScanError(f"a pickle of {len(content)} bytes, expected at most {MOST_PICKLE_BYTES}")
    try:
        return _Scan(content, start, is_archived).run()
    except ScanError:
        raise
    # The ways in which damaged bytes fail the interpreter below.
    except (IndexError, KeyError, TypeError, AttributeError, ValueError, struct.error) as error:
        raise ScanError(f"not a checkpoint that torch.load reads (damaged pickle, {type(error).__name__})") from None


class _Scan:
    """Interpreter of one pickle, whose objects are the stand-ins above."""

    def __init__(self, content: bytes, position: int, is_archived: bool):
        self._content, self._position, self._start, self._is_archived = content, position, position, is_archived
        self._stack: list = []
        self._marked: list[list] = []
        self._memo: dict[int, object] = {}
        self._storages: dict[str, tuple[str, int]] = {}
        self._calls = self._arguments = self._numbers = 0

    def run(self) -> ScannedPickle:
        """Interpret the pickle up to its end."""
        content, last = self._content, self._start + MOST_PICKLE_BYTES
        while (code := content[self._position]) != 0x2E:
            self._position += 1
            if self._position > last:
                raise ScanError(f"a pickle of more than {MOST_PICKLE_BYTES} bytes")
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise ScanError(f"not a checkpoint that torch.load reads (opcode {code:#04x} in its pickle)")
            operation(self)
        result = self._stack.pop()
        sizes = {key: _STORAGE_BYTES[kind] * count for key, (kind, count) in self._storages.items()}
        keys = tuple(result.texts) if isinstance(result, _List) else ()
        return ScannedPickle(self._position + 1, sizes, keys, result if type(result) is int else None)

    def _take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        end = self._position + count
        if end > len(self._content):
            raise IndexError
        part = self._content[self._position : end]
        self._position = end
        return part

    def _line(self) -> str:
        """Return the text up to the next line feed."""
        end = self._content.index(b"\n", self._position, self._position + 200)
        line = self._content[self._position : end].decode()
        self._position = end + 1
        return line

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _number(self, form: str) -> None:
        (value,) = struct.unpack(form, self._take(struct.calcsize(form)))
        self._stack.append(value)

    def _text(self, length: int) -> None:
        self._stack.append(self._take(length).decode("utf-8", "surrogatepass"))

    def _items(self) -> list:
        """Return what was pushed since the last mark."""
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _group(self, count: int) -> None:
        """Replace the last `count` values by their tuple."""
        if len(self._stack) < count:
            raise IndexError
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _append(self, items: list) -> None:
        target = self._stack[-1]
        if not isinstance(target, _List):
            raise TypeError
        target.texts += [item for item in items if isinstance(item, str)]
        target.length += len(items)
        target.is_flat &= all(isinstance(item, _SCALARS) for item in items)

    def _set(self, items: list) -> None:
        target = self._stack[-1]
        if not isinstance(target, _Dict) or len(items) % 2 or target.is_full:
            raise TypeError
        self._numbers += sum(type(key) is not str for key in items[::2])
        if self._numbers > _MOST_NUMBERED:
            raise ScanError(f"refused, as it has more than {_MOST_NUMBERED} keys that are no text")
        for key in items[::2]:
            parts = key if type(key) is tuple else (key,)
            if len(parts) > _LONGEST_KEY:
                raise ScanError(f"refused, as one of its keys is a tuple of {len(parts)} values")
            # A tuple of tuples can take any time to be hashed.
            if not all(isinstance(part, _SCALARS) for part in parts):
                raise ScanError(f"refused, as one of its keys is a {type(key).__name__} of other things than scalars")
            target.keys.add(key)

    def _global(self) -> None:
        name = f"{self._line()}.{self._line()}"
        if name not in _CALLS and name not in _STORAGE_BYTES and name not in _DTYPES:
            if "DTensor" in name:
                raise ScanError("holds DTensors, which are shares of tensors: save the full_tensor() of each instead")
            raise ScanError(f"refused, as loading it would call '{name}'; expected plain floating point tensors")
        self._stack.append(_Global(name))

    def _call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._calls += 1
        if self._calls > _MOST_CALLS:
            raise ScanError(f"refused, as it holds more than {_MOST_CALLS} tensors")
        if not isinstance(function, _Global) or function.name not in _CALLS or type(arguments) is not tuple:
            raise TypeError
        self._arguments += sum(len(part) for part in arguments if isinstance(part, str | tuple))
        self._numbers += sum(part.length for part in arguments if isinstance(part, _List))
        self._numbers += sum(len(part.keys) for part in arguments if isinstance(part, _Dict))
        if self._arguments > _MOST_ARGUMENTS or self._numbers > _MOST_NUMBERED:
            raise ScanError(f"refused, as its calls take more than {_MOST_ARGUMENTS} letters or {_MOST_NUMBERED} items")
        result = _CALLS[function.name](*arguments)
        if result is None:
            raise ScanError(f"refused, as it calls '{function.name}' with arguments that torch.save never writes")
        self._stack.append(result)

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        is_metadata = isinstance(state, _Dict) and state.keys <= {"_metadata"}
        if not (is_metadata and isinstance(target, _Dict) and target.is_ordered):
            raise ScanError("refused, as loading it would set attributes other than '_metadata'")

    def _persistent(self) -> None:
        """Replace the id of a storage by the storage."""
        word, kind, key, location, count, *view = self._stack.pop()
        is_sound = word == "storage" and type(location) is str and type(count) is int and count >= 0
        is_key = type(key) is str and key.isascii() and key.isdigit() and len(key) <= 20
        if not is_sound or not is_key or view != ([] if self._is_archived else [None]):
            raise ScanError("refused, as it has a storage that torch.save never writes")
        if self._storages.setdefault(key, (kind.name, count)) != (kind.name, count):
            raise ScanError(f"refused, as its storage {key} has two types or sizes")
        self._stack.append(_Storage(count * (kind.name in _STORAGE_BYTES)))


def _tensor(storage, offset, size, stride, *others) -> _Opaque | None:
    """Return a tensor's stand-in; None where a view leaves its storage, or an argument is another."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or not all(type(number) is int and number >= 0 for number in numbers):
        return None
    if len(size) != len(stride) or len(size) > _MOST_DIMENSIONS:
        return None
    end = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True)) + 1
    is_inside = end <= storage.length if all(size) else offset <= storage.length
    # The others are requires_grad, the hooks, which are empty, and metadata, which no plain tensor has.
    return _OPAQUE if is_inside and (not others or (len(others) == 2 and _stays_empty(others[1]))) else None


def _parameter(data, requires_grad, hooks) -> _Opaque | None:
    return _OPAQUE if data is _OPAQUE and type(requires_grad) is bool and _stays_empty(hooks) else None


def _stays_empty(hooks: object) -> bool:
    """Return if hooks are an empty dictionary, which is closed: the memo could fill it after the call."""
    if not isinstance(hooks, _Dict) or hooks.keys:
        return False
    hooks.is_full = True
    return True


def _ordered_dict(*arguments) -> _Dict | None:
    return None if arguments else _Dict(is_ordered=True)


def _size(numbers) -> _Opaque | None:
    return _OPAQUE if type(numbers) is tuple and all(type(number) is int for number in numbers) else None


def _device(kind, index=0) -> _Opaque | None:
    return _OPAQUE if type(kind) is str and type(index) is int else None


def _counter(*counts) -> _Opaque | None:
    # Schedulers of learning rates count their milestones.
    return _OPAQUE if not counts or (len(counts) == 1 and isinstance(counts[0], _Dict)) else None


def _set(items) -> _Opaque | None:
    return _OPAQUE if isinstance(items, _List) and items.is_flat and items.length <= _MOST_NUMBERED else None


def _bytes(text, encoding) -> _Opaque | None:
    # Other encodings, such as punycode, can take any time.
    return _OPAQUE if type(text) is str and encoding == "latin1" else None


_CALLS: dict[str, Callable] = {
    _ORDERED_DICT: _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.Counter": _counter,
    "__builtin__.set": _set,
    "builtins.set": _set,
    "_codecs.encode": _bytes,
}
"""Globals that a pickle may call, each with the check of its arguments."""

_OPERATIONS: dict[int, Callable[[_Scan], object]] = {
    0x80: lambda scan: scan._take(1),  # PROTO
    0x28: _Scan._mark,  # MARK
    0x4E: lambda scan: scan._push(None),  # NONE
    0x88: lambda scan: scan._push(True),  # NEWTRUE
    0x89: lambda scan: scan._push(False),  # NEWFALSE
    0x4A: lambda scan: scan._number("<i"),  # BININT
    0x4B: lambda scan: scan._number("<B"),  # BININT1
    0x4D: lambda scan: scan._number("<H"),  # BININT2
    0x8A: lambda scan: scan._push(int.from_bytes(scan._take(scan._take(1)[0]), "little", signed=True)),  # LONG1
    0x47: lambda scan: scan._number(">d"),  # BINFLOAT
    0x58: lambda scan: scan._text(int.from_bytes(scan._take(4), "little")),  # BINUNICODE
    0x55: lambda scan: scan._text(scan._take(1)[0]),  # SHORT_BINSTRING
    0x29: lambda scan: scan._push(()),  # EMPTY_TUPLE
    0x85: lambda scan: scan._group(1),  # TUPLE1
    0x86: lambda scan: scan._group(2),  # TUPLE2
    0x87: lambda scan: scan._group(3),  # TUPLE3
    0x74: lambda scan: scan._push(tuple(scan._items())),  # TUPLE
    0x5D: lambda scan: scan._push(_List()),  # EMPTY_LIST
    0x61: lambda scan: scan._append([scan._stack.pop()]),  # APPEND
    0x65: lambda scan: scan._append(scan._items()),  # APPENDS
    0x7D: lambda scan: scan._push(_Dict()),  # EMPTY_DICT
    0x73: lambda scan: scan._set([scan._stack.pop(-2), scan._stack.pop()]),  # SETITEM
    0x75: lambda scan: scan._set(scan._items()),  # SETITEMS
    0x68: lambda scan: scan._push(scan._memo[scan._take(1)[0]]),  # BINGET
    0x6A: lambda scan: scan._push(scan._memo[int.from_bytes(scan._take(4), "little")]),  # LONG_BINGET
    0x71: lambda scan: scan._put(scan._take(1)[0]),  # BINPUT
    0x72: lambda scan: scan._put(int.from_bytes(scan._take(4), "little")),  # LONG_BINPUT
    0x63: _Scan._global,  # GLOBAL
    0x52: _Scan._call,  # REDUCE
    0x62: _Scan._build,  # BUILD
    0x51: _Scan._persistent,  # BINPERSID
}
"""Opcodes that `torch.save` writes, by their numbers."""
