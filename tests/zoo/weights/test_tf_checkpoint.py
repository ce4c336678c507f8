"""Checkpoints of TensorFlow: real ones, ones written here in every form, damaged and hostile ones.

`files/tiny.*`, `sharded.*` and `parts.index` were written by TensorFlow 2.21, as were the indices
of MoViNets, from tensorflow/models' own code; `i3d_*.index` are of DeepMind's kinetics-i3d
(Apache-2.0).
"""

import dataclasses
import gzip
import io
import pathlib
import struct
import tarfile
import types

import jax
import numpy as np
import pytest

import zoo
from zoo import cost, registry
from zoo.commands import files as file_commands
from zoo.models import cnn
from zoo.weights import convert, sstable, tf_checkpoint
from zoo.weights.convert import Rule
from zoo.weights.crc32c import crc32c, masked
from zoo.weights.errors import WeightsError
from zoo.weights.published import PUBLISHED

FILES = pathlib.Path(__file__).parent / "files"
TYPES = {"float32": 1, "int64": 9, "bfloat16": 14}


def bit_by_bit(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(value):
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def snappy(data):
    """Words of eight bytes that came before are repeated, everything else is kept."""
    result, position = varint(len(data)), 0
    while position < len(data):
        word = data[position : position + 8]
        found = data.rfind(word, 0, position)
        if len(word) == 8 and found >= 0 and position - found < 1 << 11:
            back = position - found
            result += bytes([1 | 4 << 2 | back >> 8 << 5, back & 0xFF])
        elif len(word) == 8 and found >= 0:
            result += bytes([2 | 7 << 2]) + struct.pack("<H", position - found)
        else:
            result += bytes([(len(word) - 1) << 2]) + word
        position += len(word)
    return result


def block(entries, compress=False):
    content, before = b"", b""
    for key, value in entries:
        shared = next((n for n in range(len(before)) if before[n : n + 1] != key[n : n + 1]), 0)
        own = key[shared:]
        content += varint(shared) + varint(len(own)) + varint(len(value)) + own + value
        before = key
    content += struct.pack("<II", 0, 1)
    content = snappy(content) if compress else content
    content += bytes([compress])
    return content + struct.pack("<I", masked(bit_by_bit(content)))


def index(entries, header=b"\x08\x01", compress=False, again=False):
    """An index. entries: names and the protocol buffers that describe them; again: its first block
    is pointed at twice."""
    rows = [(b"", header), *((name, value) for name, value in entries)]
    content, places = b"", []
    for start in range(0, len(rows), 2):
        part = block(rows[start : start + 2], compress)
        places.append((rows[start][0], varint(len(content)) + varint(len(part) - 5)))
        content += part
    last = block([places[0], *places] if again else places)
    footer = varint(0) + varint(0) + varint(len(content)) + varint(len(last) - 5)
    return content + last + footer.ljust(40, b"\0") + sstable.MAGIC


def entry(dtype, shape, offset, content, shard=0, size=None):
    axes = b"".join(message(2, number(1, n)) for n in shape)
    size = len(content) if size is None else size
    where = number(3, shard) + number(4, offset) + number(5, size)
    checksum = varint(6 << 3 | 5) + struct.pack("<I", masked(bit_by_bit(content)))
    return number(1, TYPES[dtype]) + message(2, axes) + where + checksum


def checkpoint(arrays, **options):
    """The index and the one shard of arrays."""
    entries, shard = [], b""
    for name, array in sorted(arrays.items()):
        content = np.asarray(array, order="C").tobytes()
        entries.append((name.encode(), entry(array.dtype.name, array.shape, len(shard), content)))
        shard += content
    return index(entries, **options), shard


def written(folder, arrays, **options):
    content, shard = checkpoint(arrays, **options)
    (folder / "c.index").write_bytes(content)
    (folder / "c.data-00000-of-00001").write_bytes(shard)
    return folder / "c.index"


def archive(path, members):
    """A .tar.gz of (name or header, content)."""
    with tarfile.open(path, "w:gz") as file:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    names = [f"model/layer-{n}/kernel" for n in range(7)]
    return {name: random.standard_normal((3, n)).astype("f4") for n, name in enumerate(names)}


def test_checksums():
    assert crc32c(b"123456789") == 0xE3069283  # as RFC 3720 has it
    random = np.random.default_rng(0)
    for size in (0, 1, 3, 4, 5, 63, 64, 65, 1000, 4099):
        data = random.integers(0, 256, size, np.uint8).tobytes()
        assert crc32c(data) == bit_by_bit(data)


def test_a_file_of_tensorflows_own_with_every_kind_of_tensor():
    found = tf_checkpoint.read(FILES / "tiny.index")
    expected = {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "inner/half": np.array([0.5, -1.5], np.float16),
        "inner/brain": np.array([1, -2, 3], np.float32),  # bfloat16
        "count": np.array(7, np.int64),
        "flag": np.array([True, False]),
        "double": np.array([[0.1]]),
        "empty": np.zeros((0, 3), np.float32),
        "small": np.array([250, 3], np.uint8),
    }  # and text, which is none
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)


def test_two_shards_of_tensorflows_own():
    found = tf_checkpoint.read(FILES / "sharded.index")
    np.testing.assert_array_equal(found["scope/a"], np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(found["scope/b"], np.arange(3, dtype=np.int32))


def test_a_variable_in_parts_is_refused():
    with pytest.raises(WeightsError, match="p is saved in parts"):
        tf_checkpoint.read(FILES / "parts.index")


@pytest.mark.parametrize("compress", [False, True])
def test_files_and_archives_are_read(arrays, tmp_path, compress):
    path = written(tmp_path, arrays, compress=compress)
    packed = [("c/checkpoint", b"x")]
    packed += [(f"c/{file.name}", file.read_bytes()) for file in sorted(tmp_path.iterdir())]
    for source in (path, archive(tmp_path / "c.tar.gz", packed)):
        assert tf_checkpoint.is_checkpoint(source)
        found = tf_checkpoint.read(source)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "c.data-00000-of-00001").write_bytes(b"123")
    assert not tf_checkpoint.is_checkpoint(tmp_path / "c.data-00000-of-00001")
    assert not tf_checkpoint.is_checkpoint(tmp_path / "absent")
    from zoo.weights import state_files

    with pytest.raises(WeightsError, match=r"give its \.index file"):
        state_files.read(tmp_path / "c.data-00000-of-00001")


def test_every_changed_byte_of_an_index_is_noticed_or_changes_nothing(tmp_path):
    good, shard = (FILES / "tiny.index").read_bytes(), FILES / "tiny.data-00000-of-00001"
    expected, _ = tf_checkpoint.entries(good, "good")
    (tmp_path / "c.data-00000-of-00001").write_bytes(shard.read_bytes())
    refused = 0
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 0x11
        try:
            assert tf_checkpoint.entries(bytes(bad), "bad") == (expected, 1)
        except WeightsError:
            refused += 1
        with pytest.raises(WeightsError):
            tf_checkpoint.entries(good[:place], "cut")
    assert refused > 0.9 * len(good)


def test_damaged_and_absent_shards(arrays, tmp_path):
    path, shard = written(tmp_path, arrays), tmp_path / "c.data-00000-of-00001"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=r"has 251 bytes, fewer than the tensors in it"):
        tf_checkpoint.read(path)
    shard.write_bytes(content[:-1] + b"\0")
    with pytest.raises(WeightsError, match=r"layer-6/kernel does not fit its checksum"):
        tf_checkpoint.read(path)
    shard.unlink()
    with pytest.raises(WeightsError, match=r"data-00000-of-00001: cannot be read.*bring all"):
        tf_checkpoint.read(path)


CLAIM = entry("float32", (1 << 20, 1 << 20), 0, b"", size=1 << 42)
HOSTILE = {
    "more than the shard has": (index([(b"a", CLAIM)]), "fewer than the tensors"),
    "a shape without bytes": (
        index([(b"a", entry("float32", (1 << 40,), 0, b"1234"))]),
        r"a of shape \(1099511627776,\) has 4 bytes",
    ),
    "the same bytes again and again": (
        index([(b"%03d" % n, entry("float32", (1,), 0, b"1234")) for n in range(300)]),
        "fewer than the tensors",
    ),
    "beyond the end": (
        index([(b"a", entry("float32", (1,), 1 << 60, b"1234"))]),
        "does not fit its checksum",
    ),
    "a shard of many": (index([(b"a", entry("float32", (1,), 0, b"", 5, 4))]), "shard 5 of 1"),
    "big-endian": (index([(b"a", CLAIM)], header=b"\x08\x01\x10\x01"), "big-endian"),
    "an unknown type": (index([(b"a", number(1, 20))]), "of TensorFlow's type 20"),
    "a name twice": (
        index([(b"a", CLAIM), (b"a/.ATTRIBUTES/VARIABLE_VALUE", CLAIM)]),
        "a is there",
    ),
    "a block twice": (index([(b"a", CLAIM)], again=True), "two blocks overlap"),
    "no header": (index([], header=b""), "an index without tensors"),
    "half a field": (index([(b"a", b"\x08")]), "a number is cut off"),
    "a long field": (index([(b"a", b"\x12\xff\x01")]), "a field is cut off"),
    "a name that is no text": (index([(b"\xff", CLAIM)]), "not a whole index.*decode"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_indices_are_refused(case, tmp_path):
    content, reason = HOSTILE[case]
    (tmp_path / "c.index").write_bytes(content)
    (tmp_path / "c.data-00000-of-00001").write_bytes(b"1234")
    with pytest.raises(WeightsError, match=reason):
        tf_checkpoint.read(tmp_path / "c.index")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (varint(1 << 40) + b"\0a", "cannot hold 1,099,511,627,776"),
        (varint(8) + b"\0a", "hold 1, not 8"),
        (varint(4) + b"\x0cab", "cut off"),
        (varint(4) + b"\x01\x05", "repeat what is not there"),
    ],
)
def test_compressed_blocks_that_lie(data, reason):
    content = data + b"\x01"
    content += struct.pack("<I", masked(bit_by_bit(content)))
    footer = varint(0) + varint(0) + varint(0) + varint(len(data))
    with pytest.raises(WeightsError, match=reason):
        tf_checkpoint.entries(content + footer.ljust(40, b"\0") + sstable.MAGIC, "c")


def test_hostile_archives_are_refused_and_nothing_is_written(arrays, tmp_path, monkeypatch):
    content, shard = checkpoint(arrays)
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    link = tarfile.TarInfo("c.index")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    cases = {
        "a link or there twice": [(link, b"")],
        "there twice": [("c.index", content), ("c.index", content)],
        r"0 checkpoints in the archive \(none\)": [("readme", b"x")],
        "2 checkpoints": [("a.index", content), ("b.index", content)],
        "data-00000-of-00001 is missing": [("c.index", content)],
    }
    for reason, members in cases.items():
        with pytest.raises(WeightsError, match=reason):
            tf_checkpoint.read(archive(tmp_path / "c.tar.gz", members))
    outside = [("../../c.index", content), ("../../c.data-00000-of-00001", shard)]
    assert tf_checkpoint.read(archive(tmp_path / "c.tar.gz", outside)).keys() == arrays.keys()
    assert not list(folder.iterdir()) and {p.name for p in tmp_path.iterdir()} == {"in", "c.tar.gz"}
    whole = (tmp_path / "c.tar.gz").read_bytes()
    (tmp_path / "c.tar.gz").write_bytes(whole[:-30])
    with pytest.raises(WeightsError, match="the archive is damaged"):
        tf_checkpoint.read(tmp_path / "c.tar.gz")


def test_archives_that_grow_are_refused(tmp_path):
    limits = tf_checkpoint.Limits(factor=2, more=1 << 16)
    zeros = archive(tmp_path / "zeros.tar.gz", [("c.index", bytes(4 << 20))])
    header = tarfile.TarInfo("c.index")
    header.size = 1 << 40
    (tmp_path / "claim.tar.gz").write_bytes(
        gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    )
    many = archive(tmp_path / "many.tar.gz", [(f"{n}", b"") for n in range(1001)])
    for path in (zeros, tmp_path / "claim.tar.gz"):
        with pytest.raises(WeightsError, match="made to fill the memory"):
            tf_checkpoint.read(path, limits)
    with pytest.raises(WeightsError, match="more than 1000 files"):
        tf_checkpoint.read(many)


REAL = {
    "i3d_rgb_imagenet": ("i3d_inception", 400, {}),
    "i3d_rgb_kinetics600": ("i3d_inception", 600, {}),
    "movinet_a0_base": ("movinet_a0_base", 600, {"same_padding": True}),
    "movinet_a0_stream": ("movinet_a0_stream", 600, {"same_padding": True}),
}


@pytest.mark.parametrize("file", REAL)
def test_every_name_and_shape_of_the_originals_indices_has_its_place(file):
    name, classes, overrides = REAL[file]
    model = zoo.create_model(name, num_classes=classes, **overrides)
    entries, _ = tf_checkpoint.entries((FILES / f"{file}.index").read_bytes(), file)
    state = {
        key: np.broadcast_to(np.float32(number), value.shape)
        for number, (key, value) in enumerate(entries.items())
    }
    shapes = cost.variable_shapes(model, (16, 224, 224, 3))
    make = registry.MODELS[name]().tf_table
    assert make is not None
    variables = convert.to_variables(make(model.config), state, shapes, file)
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)
    del state[next(key for key in state if "w" in key or "kernel" in key)]
    with pytest.raises(convert.ConversionError, match="is missing"):
        convert.to_variables(make(model.config), state, shapes, file)


def test_a_checkpoint_is_imported_under_the_name_of_its_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    rules = (
        Rule("conv/w", "params/conv1/kernel"),
        Rule("conv/b", "params/conv1/bias", "channels"),
        Rule("out/w", "params/head/kernel", "inner_pointwise"),
    )
    tf_table = convert.Table(
        rules,
        ignored=("{path}/Momentum",),
        filled=(("params/head/bias", 0.0), ("params/{path}/bias", 2.0), ("{path}/kernel", 1.0)),
    )
    config = cnn.CNNConfig(frames=2, size=24, widths=(4,), hidden=8)
    family = registry.Family(
        {"toy": config}, cnn.CNN, lambda _: convert.Table(()), tf_table=lambda _: tf_table
    )
    monkeypatch.setattr(registry, "MODELS", {**registry.MODELS, "toy": lambda: family})
    record = dataclasses.replace(
        PUBLISHED["x3d_m.k400"], model="toy", frames=2, size=24, decode_size=24
    )
    monkeypatch.setitem(PUBLISHED, "toy.k400", record)
    monkeypatch.setitem(PUBLISHED, "toy.k400_tf", dataclasses.replace(record, copy_of="toy.k400"))
    shapes = cost.variable_shapes(zoo.create_model("toy", num_classes=400), (2, 24, 24, 3))
    conv, head = (shapes["params"][name]["kernel"].shape for name in ("conv1", "head"))
    random = np.random.default_rng(0)
    values = {"conv/w": conv, "conv/b": (1, 1, 4), "out/w": (1, 1, 1, *head), "out/w/Momentum": ()}
    arrays = {k: random.standard_normal(shape).astype("f4") for k, shape in values.items()}
    index_path = written(tmp_path, arrays)
    file_commands._import(types.SimpleNamespace(name="toy", file=index_path))
    out = capsys.readouterr()
    assert out.out.startswith("toy.k400_tf: sha256 ") and not out.err
    _, variables, spec = zoo.load_pretrained("toy.k400_tf")
    params = variables["params"]
    np.testing.assert_array_equal(params["conv1"]["kernel"], arrays["conv/w"])
    np.testing.assert_array_equal(params["conv1"]["bias"], arrays["conv/b"].reshape(4))
    np.testing.assert_array_equal(params["head"]["kernel"], arrays["out/w"].reshape(head))
    assert (params["head"]["bias"] == 0).all() and (params["hidden"]["bias"] == 2).all()
    assert spec.results["val/top1"] == 0.7594
    bad = written(
        tmp_path, {k: v for k, v in arrays.items() if k != "out/w"} | {"x": arrays["conv/b"]}
    )
    with pytest.raises(convert.ConversionError, match="x is unknown"):
        zoo.import_weights("toy", bad)


def test_records_of_tensorflows_files():
    google = PUBLISHED["movinet_a2_stream.k600_tf"]
    assert google.url.endswith("tf_model_garden/vision/movinet/movinet_a2_stream.tar.gz")
    assert google.overrides == {"same_padding": True} and google.licence == "Apache-2.0"
    for name, record in PUBLISHED.items():
        if record.copy_of:
            assert name == f"{record.copy_of}_tf" and not PUBLISHED[record.copy_of].copy_of
            assert registry.MODELS[record.model]().tf_table is not None
    with pytest.raises(WeightsError, match=r"not one file, so download model\.ckpt\.index and"):
        zoo.load_pretrained("i3d_inception.k400_tf")
