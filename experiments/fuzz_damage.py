"""Ways to damage a compressed file, for `experiments.fuzz_codec`.

Each takes a whole file and a random generator and gives bytes. Those of `REPAIRS` make all
checksums right again.
"""

import struct
from collections.abc import Callable, Mapping

import numpy as np

from zoo.codec import container
from zoo.codec.checksum import crc32c
from zoo.codec.container import Group

REPAIRED = "repaired"
_EDGES = (0, 1, 2, 3, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """A damaged copy and the name of what was done; half of them have right checksums."""
    choices = REPAIRS if rng.random() < 0.5 else PLAIN
    name = str(rng.choice(list(choices)))
    return name, choices[name](data, rng)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Ends early."""
    return data[: rng.integers(len(data))]


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes or bits are others."""
    broken = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = rng.integers(len(broken))
        broken[place] ^= (1 << rng.integers(8)) if rng.random() < 0.5 else rng.integers(1, 256)
    return bytes(broken)


def spliced(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes are taken out, put in, repeated or zeroed; the end may be missing too."""
    broken = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(broken) + 1))
        size = int(rng.integers(1, 50))
        piece = [b"", rng.bytes(size), bytes(size), bytes(broken[place : place + size]) * 2]
        broken[place : place + size * int(rng.integers(2))] = piece[rng.integers(4)]
    return bytes(broken) if rng.random() < 0.7 else cut(bytes(broken) or b"\0", rng)


def _rebuilt(data: bytes, groups: list[Group]) -> bytes:
    return container.read_header(data, "a sample").pack() + b"".join(g.pack() for g in groups)


def symbols(data: bytes, rng: np.random.Generator) -> bytes:
    """The coded symbols of one group are changed, cut, made longer, zeroed or random."""
    groups = list(container.parse(data, "a sample").groups)
    place = rng.integers(len(groups))
    group = groups[place]
    content = bytearray(group.data)
    kind = rng.integers(6)
    if kind < 2:
        content = bytearray(changed(bytes(content), rng))
    elif kind == 2:
        content = bytearray(spliced(bytes(content), rng))
    elif kind == 3:
        content = content[: rng.integers(len(content) + 1)]
    elif kind == 4:
        content[1:] = bytes([rng.choice([0, 0xFF])]) * int(rng.integers(200))
    else:
        content[1:] = rng.bytes(int(rng.integers(400)))
    groups[place] = Group(group.number, group.first, group.ticks, group.last, bytes(content))
    return _rebuilt(data, groups)


def order(data: bytes, rng: np.random.Generator) -> bytes:
    """Groups are left out, repeated or exchanged, or get other numbers, frames and times."""
    groups = list(container.parse(data, "a sample").groups)
    groups = [groups[k] for k in rng.integers(len(groups), size=rng.integers(1, 5))]
    for k, group in enumerate(groups):
        ticks, count = group.ticks, len(group.ticks)
        if rng.random() < 0.3:
            count = int(rng.integers(1, 7))
        if rng.random() < 0.3 or count != len(ticks):
            steps = rng.choice([0, 1, 512, 0xFFFFFFFF], count).cumsum()
            ticks = tuple((int(rng.integers(2000)) + steps).tolist())
        number = int(rng.integers(4)) if rng.random() < 0.3 else group.number
        first = int(rng.integers(8)) if rng.random() < 0.3 else group.first
        groups[k] = Group(number, first, ticks, group.last, group.data)
    return _rebuilt(data, groups)


def group_fields(data: bytes, rng: np.random.Generator) -> bytes:
    """A field of a group's header or a time stamp has an extreme value."""
    groups = container.parse(data, "a sample").groups
    packed = [bytearray(group.pack()) for group in groups]
    body = packed[rng.integers(len(packed))]
    fields = [(4, "<I"), (8, "<I"), (12, "<H"), (14, "<I"), (18, "<Q"), (26, "<I")]
    place, form = fields[rng.integers(len(fields))]
    top = (1 << 8 * struct.calcsize(form)) - 1
    struct.pack_into(form, body, place, min(int(rng.choice(_EDGES)), top))
    if form == "<Q" and rng.random() < 0.5:
        struct.pack_into(form, body, place, 1 << int(rng.integers(30, 64)))
    body[-4:] = struct.pack("<I", crc32c(bytes(body[:-4])))
    header = container.read_header(data, "a sample").pack()
    return header + b"".join(bytes(part) for part in packed)


def header_fields(data: bytes, rng: np.random.Generator) -> bytes:
    """One or two fields of the file's header have other values.

    Sizes are those that need no other compilation than the samples' or are too large: a size of its
    own takes the time of its compilation, which is no finding.
    """
    header = bytearray(container.read_header(data, "a sample").pack())
    fields = [
        *[(18, "<I", [*range(1, 49), 2048, 8192, 8193, 0, 0xFFFFFFFF])] * 2,
        *[(22, "<I", [*range(1, 49), 2048, 8192, 8193, 0, 0xFFFFFFFF])] * 2,
        *((place, "<B", range(256)) for place in (26, 27, 28)),
        *((place, "<I", _EDGES) for place in (29, 33, 37, 41)),
        (8, "<H", range(4)),
    ]
    for _ in range(rng.integers(1, 3)):
        place, form, values = fields[rng.integers(len(fields))]
        struct.pack_into(form, header, place, int(rng.choice(list(values))))
    if rng.random() < 0.3:
        header[26] = 18 - header[26] if header[26] in (8, 10) else 8
    header[-4:] = struct.pack("<I", crc32c(bytes(header[:-4])))
    return bytes(header) + data[len(header) :]


Damage = Callable[[bytes, np.random.Generator], bytes]
PLAIN: Mapping[str, Damage] = {"cut": cut, "changed": changed, "spliced": spliced}
REPAIRS: Mapping[str, Damage] = {
    f"{REPAIRED} {function.__name__}": function
    for function in (symbols, order, group_fields, header_fields)
}
