"""Checkpoints around a pickle that is written opcode by opcode."""

import io
import struct
import zipfile


def archive(pickle: bytes, storages: tuple[bytes, ...] = ()) -> bytes:
    """Return a file like those of `torch.save`, around opcodes without their frame."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as members:
        members.writestr("a/data.pkl", b"\x80\x02" + pickle + b".")
        members.writestr("a/byteorder", "little")
        for number, storage in enumerate(storages):
            members.writestr(f"a/data/{number}", storage)
        members.writestr("a/version", "3\n")
    return content.getvalue()


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    return b"\x8a" + bytes([9]) + value.to_bytes(9, "little", signed=True)


def storage(count: int, key: str = "0") -> bytes:
    """Return the opcodes of a float32 storage."""
    return b"(" + text("storage") + name("torch", "FloatStorage") + text(key) + text("cpu") + whole(count) + b"tQ"


def tensor(count: int, offset: int, size: int, stride: int) -> bytes:
    """Return the opcodes of a view of a storage of `count` numbers."""
    view = whole(offset) + whole(size) + b"\x85" + whole(stride) + b"\x85"
    no_hooks = name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage(count) + view + b"\x89" + no_hooks + b"tR"


def entry(value: bytes) -> bytes:
    """Return the opcodes of a dictionary with one entry, x."""
    return b"}" + text("x") + value + b"s"
