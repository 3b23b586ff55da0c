"""Files of `torch.save`: checked byte by byte, then loaded by `torch.load(weights_only=True)` and nothing weaker."""

import io
import mmap
import re
import struct
import warnings
import zlib
from pathlib import Path

import torch

from nfn_transformer.zoo.pickle_scan import ScanError, scan_archived_pickle, scan_pickle

_ZIP_START, _ZIP_END, _ZIP_ENTRY = b"PK\x03\x04", b"PK\x05\x06", b"PK\x01\x02"
_END = struct.Struct("<4s4H2LH")
_END_64, _LOCATOR_64 = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_ENTRY, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")

# The files of torch before 1.6 begin with these two numbers.
_OLD_MAGIC, _OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


Bytes = bytes | mmap.mmap


def load_torch_file(content: bytes) -> object:
    """Return what `torch.save` wrote: tensors and plain containers, all on the CPU.

    Every member of the archive is compared with its checksum; files of torch before 1.6 have none.

    Raises:
        ValueError: the bytes are damaged, or hold anything but tensors and plain containers.
    """
    if not content:
        raise ValueError("the file is empty")
    if content.startswith(_ZIP_START):
        _check_archive(content)
    else:
        _check_old_file(content)
    return _load(io.BytesIO(content))


def map_torch_file(path: Path) -> object:
    """Return what `torch.save` wrote to a file of any size, checked alike; its tensors are mapped into memory.

    Raises:
        ValueError: the file is damaged, or holds anything but tensors and plain containers.
    """
    with open(path, "rb") as file:
        if file.read(4) != _ZIP_START:
            raise ValueError("neither a safetensors file nor one of torch.save since PyTorch 1.6")
        # The traceback of an error refers to views of the mapping, which therefore cannot be closed here.
        _check_archive(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return _load(str(path), mmap=True)


def _load(file: io.BytesIO | str, **how: bool) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True, **how)
    # Damaged bytes make torch.load fail in more ways than it documents, and each of them means the same here.
    except Exception as error:
        # The rest of torch's message advises a weaker way to load, which is the last thing to pass on.
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        problem = f"refused, as loading it would call '{unsafe[1]}'" if unsafe else None
        raise ValueError(problem or f"not a checkpoint that torch.load reads ({type(error).__name__})") from None


def _check_archive(content: Bytes) -> None:
    """Check the archive of a file as `torch.save` makes it, its members' checksums, and its pickle.

    Raises:
        ValueError: the archive is damaged or compressed, or its pickle is refused.
    """
    members = _members(content)
    prefix = next(iter(members)).partition(b"/")[0]
    pickle = members.get(prefix + b"/data.pkl")
    if pickle is None:
        raise ValueError("not a checkpoint that torch.load reads (its archive has no data.pkl)")
    for key, size in scan_archived_pickle(bytes(pickle)).items():
        member = members.get(prefix + b"/data/" + key.encode())
        if member is None or len(member) < size:
            raise ValueError(f"damaged: its storage {key} should have {size} bytes, has {len(member or b'')}")


def _members(content: Bytes) -> dict[bytes, memoryview]:
    """Return name -> bytes of the members of an archive.

    The archive is read strictly, so that PyTorch's own reader can see no other members than these.

    Raises:
        ValueError: the archive is damaged or compressed.
    """
    broken = ValueError("truncated or damaged: the end of its archive is not there")
    last = len(content) - _END.size
    if last < 0:
        raise broken
    sign, *_, count, length, start, comment = _END.unpack_from(content, last)
    if content[last - _LOCATOR_64.size : last].startswith(b"PK\x06\x07"):
        last -= _LOCATOR_64.size + _END_64.size
        end_start = _LOCATOR_64.unpack_from(content, last + _END_64.size)[2]
        if last < 0 or end_start != last or _END_64.unpack_from(content, last)[7:] != (count, length, start):
            raise broken
    if sign != _ZIP_END or comment or start + length != last or not count:
        raise broken
    whole, members, checksums, total, position = memoryview(content), {}, {}, 0, start
    for _ in range(count):
        if position + _ENTRY.size > last:
            raise broken
        entry = _ENTRY.unpack_from(content, position)
        flags, method, crc, packed, size, name_length, extra, note = entry[3], entry[4], *entry[7:13]
        name = content[position + _ENTRY.size : position + _ENTRY.size + name_length]
        position += _ENTRY.size + name_length + extra + note
        total += size
        if entry[0] != _ZIP_ENTRY or flags & 1 or name.lower() in checksums:
            raise broken
        if method or packed != size:
            raise ValueError("its archive is compressed, which torch.save never does")
        if total > len(content):
            raise ValueError("its archive claims more bytes than the file has")
        local = entry[-1]
        if local + _LOCAL.size > start or content[local : local + 4] != _ZIP_START:
            raise broken
        name_here, extra_here = _LOCAL.unpack_from(content, local)[-2:]
        begin = local + _LOCAL.size + name_here + extra_here
        if content[local + _LOCAL.size : local + _LOCAL.size + name_here] != name or begin + size > start:
            raise broken
        checksums[name.lower()] = crc
        members[name] = whole[begin : begin + size]
    if position != last:
        raise broken
    # Files that were saved after torch.serialization.set_crc32_options(False) have no checksums.
    if any(checksums.values()):
        for (name, member), crc in zip(members.items(), checksums.values(), strict=True):
            if zlib.crc32(member) != crc:
                raise ValueError(f"damaged: the checksum of its member {name.decode('ascii', 'replace')!r} differs")
    return members


def _check_old_file(content: bytes) -> None:
    """Check a file of torch before 1.6: five pickles, then the bytes of all storages.

    Raises:
        ValueError: the file is no such file or damaged, or a pickle is refused.
    """
    magic = scan_pickle(content, 0)
    protocol = scan_pickle(content, magic.end)
    if (magic.number, protocol.number) != (_OLD_MAGIC, _OLD_PROTOCOL):
        raise ScanError("not a checkpoint that torch.load reads (it begins with another number)")
    system = scan_pickle(content, protocol.end)
    state = scan_pickle(content, system.end)
    keys = scan_pickle(content, state.end)
    # Storages without bytes in the file would be whatever the memory held.
    if sorted(keys.keys) != sorted(state.storages):
        raise ScanError("damaged: its list of storages is not that of its tensors")
    if len(content) - keys.end != sum(8 + size for size in state.storages.values()):
        raise ScanError("truncated or damaged: its tensors need another number of bytes than there are")
