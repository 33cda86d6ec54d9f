"""Images of disks with a GPT, and what is on them."""

import binascii
import struct
import uuid

SECTOR = 512
MIB = 1 << 20
SWAP_TYPE = uuid.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")
DATA_TYPE = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def gpt(path, size, partitions):
    """A disk with a GPT: (first MiB, MiB, type, UUID) of each partition."""
    total = size // SECTOR
    entries = bytearray(128 * 128)
    for i, (first, length, kind, own) in enumerate(partitions):
        struct.pack_into("<16s16sQQQ", entries, i * 128, kind.bytes_le, own.bytes_le, first * MIB // SECTOR,
                         (first + length) * MIB // SECTOR - 1, 0)
        name = ("part%d" % i).encode("utf-16-le")
        entries[i * 128 + 56:i * 128 + 56 + len(name)] = name
    disk = uuid.uuid4().bytes_le

    def header(at, other, table):
        head = bytearray(struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, at, other, 34, total - 34,
                                     disk, table, 128, 128, binascii.crc32(entries)))
        struct.pack_into("<I", head, 16, binascii.crc32(head))
        return bytes(head).ljust(SECTOR, b"\0")

    with open(path, "wb") as f:
        f.truncate(size)
        f.seek(446)
        f.write(struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, total - 1))
        f.seek(510)
        f.write(b"\x55\xaa" + header(1, total - 1, 2) + entries)
        f.seek((total - 33) * SECTOR)
        f.write(entries + header(total - 1, 1, total - 33))


def attributes(path, number):
    with open(path, "rb") as f:
        f.seek(2 * SECTOR + (number - 1) * 128 + 48)
        return struct.unpack("<Q", f.read(8))[0]


def swap_header(path, offset, size, own, label):
    with open(path, "r+b") as f:
        f.seek(offset + 1024)
        f.write(struct.pack("<III16s16s", 1, size // 4096 - 1, 0, own.bytes, label.encode()))
        f.seek(offset + 4086)
        f.write(b"SWAPSPACE2")


def piece(path, offset, length):
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read(length)
