"""Torch files: read without torch, refused where they hold more than weights, bounded."""

import io
import pathlib
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.weights import pickles, torch_file

# Written by torch 2.13 with
#   torch.manual_seed(0); conv = torch.nn.Conv3d(2, 3, (1, 2, 2))
#   state = {"conv.weight": conv.weight, "conv.bias": conv.bias.detach(),
#            "steps": torch.tensor(7), "turned": torch.arange(6.).reshape(2, 3).T,
#            "half": torch.tensor([0.5, -2.0]).half(), "brain": torch.tensor([1.5]).bfloat16()}
#   torch.save({"model_state": collections.OrderedDict(state), "epoch": 3}, NAME,
#              _use_new_zipfile_serialization=NAME == "zip.pth")
FILES = pathlib.Path(__file__).parent / "files"

REFUSED = "only tensors and plain containers are read"


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_files_that_torch_wrote(name):
    state = torch_file.read(FILES / name)
    assert {key: (a.shape, a.dtype.name) for key, a in state.items()} == {
        "conv.weight": ((3, 2, 1, 2, 2), "float32"),
        "conv.bias": ((3,), "float32"),
        "steps": ((), "int64"),
        "turned": ((3, 2), "float32"),
        "half": ((2,), "float16"),
        "brain": ((1,), "float32"),
    }
    assert state["steps"] == 7 and state["brain"][0] == 1.5
    assert state["half"].tolist() == [0.5, -2.0]
    assert state["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    expected = np.float32([-0.0026, 0.1897, -0.2910])  # as torch prints them
    np.testing.assert_allclose(state["conv.weight"].ravel()[:3], expected, atol=5e-5)
    assert torch_file.is_torch_file(FILES / name)


@pytest.mark.parametrize("pickle", [b".", b"h\x05."])
def test_a_pickle_that_takes_what_was_never_put_is_damaged(pickle):
    with pytest.raises(pickles.PickleError, match="is damaged at byte"):
        pickles.load(io.BytesIO(pickle))


dtypes = st.sampled_from(
    ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
arrays = st.tuples(dtypes, st.lists(st.integers(0, 4), max_size=4), st.integers(0, 99)).map(
    lambda v: (100 * np.random.default_rng(v[2]).random(v[1])).astype(v[0])
)


@settings(max_examples=40, deadline=None)
@given(
    state=st.dictionaries(st.text(min_size=1, max_size=9), arrays, min_size=1, max_size=4),
    legacy=st.booleans(),
    container=st.sampled_from([None, *torch_file.CONTAINERS]),
)
def test_what_was_written_is_read(state, legacy, container, tmp_path_factory, code):
    writer = code.Writer(legacy)
    value = {name: writer.tensor(array) for name, array in state.items()}
    path = tmp_path_factory.mktemp("torch") / "a.pth"
    path.write_bytes(writer.file({container: value, "epoch": 3} if container else value))
    found = torch_file.read(path)
    assert list(found) == list(state)
    for name, array in state.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    strides=st.lists(st.integers(0, 7), min_size=4, max_size=4),
    offset=st.integers(0, 9),
    size=st.integers(0, 60),
    legacy=st.booleans(),
)
def test_a_view_is_what_its_strides_say_or_is_refused(
    shape, strides, offset, size, legacy, tmp_path_factory, code
):
    writer = code.Writer(legacy)
    values = np.arange(size, dtype=np.float32)
    strides = strides[: len(shape)]
    view = writer.view(writer.storage(values), offset, shape, strides)
    path = tmp_path_factory.mktemp("torch") / "a.pth"
    path.write_bytes(writer.file({"w": view}))
    places = np.array([offset + np.dot(i, strides) for i in np.ndindex(*shape)], int)
    if places.size and places.max() >= size:
        with pytest.raises(torch_file.TorchFileError, match=r"w of shape .* needs"):
            torch_file.read(path)
    else:
        found = torch_file.read(path)["w"]
        assert found.shape == tuple(shape)
        np.testing.assert_array_equal(found.ravel(), values[places])


def read(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    return torch_file.read(path)


def refused(tmp_path, content, message):
    with pytest.raises(torch_file.TorchFileError, match=message) as error:
        read(tmp_path, content)
    assert "a.pth" in str(error.value) and "\n" not in str(error.value)


def test_bfloat16_is_read_as_float32(tmp_path, torch_writer):
    bits = np.array([0x3FC0, 0xC000, 0x7F80], np.uint16)  # 1.5, -2, infinity
    found = read(tmp_path, torch_writer.file({"w": torch_writer.tensor(bits, "bfloat16")}))["w"]
    assert found.dtype == np.float32 and found.tolist() == [1.5, -2.0, np.inf]


def test_other_ways_to_write_the_same(tmp_path, torch_writer, code):
    """Python 2's ordered dicts and strings, parameters, the first rebuild function, "module."."""
    rebuild = code.Name("torch._utils", "_rebuild_tensor")
    storage = torch_writer.storage(np.arange(3, dtype=np.float32))
    old = code.Call(rebuild, (storage, 1, (2,), (1,)))
    parameter = code.Call(
        code.Name("torch._utils", "_rebuild_parameter"), (old, True, code.ordered())
    )
    shape = code.Call(code.Name("torch", "Size"), ((2,),))
    third = code.Call(rebuild, (storage, 0, shape, shape))
    name = code.Raw(b"U\x0amodule.b.w")
    pairs = [["module.a.w", parameter], [name, old], ["module.c.w", third]]
    state = code.Call(code.Name("collections", "OrderedDict"), (pairs,))
    with_metadata = code.Raw(
        code.pickled(state)[2:-1] + code.pickled({"_metadata": {}})[2:-1] + b"b"
    )
    found = read(tmp_path, torch_writer.file({"state_dict": with_metadata}))
    assert {key: value.tolist() for key, value in found.items()} == {
        "a.w": [1, 2],
        "b.w": [1, 2],
        "c.w": [0, 2],
    }


def test_storages_of_the_old_form_may_be_views(tmp_path, code):
    writer = code.Writer(legacy=True)
    base = writer.storage(np.arange(8, dtype=np.float32)).identity
    view = code.Persistent((*base[:-1], ("0", 3, 4)))
    found = read(tmp_path, writer.file({"w": writer.view(view, 1, (2,), (1,))}))
    assert found["w"].tolist() == [4, 5]


def test_what_no_weight_uses_is_passed_over(tmp_path, torch_writer):
    """As an optimizer's state, between the weights and of other dtypes."""
    first = torch_writer.tensor(np.ones(3, np.float32))
    momentum = torch_writer.tensor(np.ones(5, np.float64))
    last = torch_writer.tensor(np.full(2, 7, np.float32))
    value = {"optimizer": {0: momentum}, "model": {"a": first, "b": last}, "best": 0.5}
    found = read(tmp_path, torch_writer.file(value))
    assert {key: value.tolist() for key, value in found.items()} == {"a": [1, 1, 1], "b": [7, 7]}


MARKER = "PWNED"


def attacks(code):
    """Pickles that would run a command, each with the name that it is refused by."""
    name = code.Name
    command = f"touch {MARKER}"
    system = name("posix", "system")
    stack_global = b"\x8c\x05posix\x8c\x06system\x93"
    inst = f"(X{chr(len(command))}\0\0\0{command}iposix\nsystem\n".encode("latin-1")
    argument = b"X" + struct.pack("<I", len(command)) + command.encode()
    return {
        "reduce": (code.Call(system, (command,)), "posix.system"),
        "nested": ({"model": {"w": [code.Call(system, (command,))]}}, "posix.system"),
        "eval": (code.Call(name("builtins", "eval"), ("1",)), "builtins.eval"),
        "python 2": (code.Call(name("__builtin__", "eval"), ("1",)), "__builtin__.eval"),
        "getattr": (code.Call(name("builtins", "getattr"), ({}, "pop")), "builtins.getattr"),
        "stack_global": (code.Raw(stack_global + argument + b"\x85R"), "posix.system"),
        "inst": (code.Raw(inst), "posix.system"),
        "obj": (code.Raw(b"(cposix\nsystem\n" + argument + b"o"), "posix.system"),
        "newobj": (code.Raw(b"csubprocess\nPopen\n" + argument + b"\x85\x81"), "subprocess.Popen"),
        "build": (code.Raw(b"ctorch._utils\n_rebuild_tensor_v2\n}b"), "sets attributes of a torch"),
        "known class": (code.Raw(b"(ccollections\nOrderedDict\no"), "opcode OBJ"),
        "extension": (code.Raw(b"\x82\x01"), "opcode EXT1"),
        "called twice": (code.Call(code.Call(name("torch", "Size"), ((1,),)), ()), "calls a tuple"),
        "torch's own": (code.Call(name("torch.hub", "load"), ("x",)), "torch.hub.load"),
        "dotted": (code.Raw(b"\x8c\x05torch\x8c\x0dhub.os.system\x93"), "torch.hub.os.system"),
        "numpy": (code.Call(name("numpy", "load"), ("x",)), "numpy.load"),
    }


ATTACKS = [
    *("reduce", "nested", "eval", "python 2", "getattr", "stack_global", "inst", "obj", "newobj"),
    *("build", "known class", "extension", "called twice", "torch's own", "dotted", "numpy"),
]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused_by_name(
    attack, legacy, tmp_path, monkeypatch, code
):
    monkeypatch.chdir(tmp_path)
    value, named = attacks(code)[attack]
    writer = code.Writer(legacy)
    weights = {"w": writer.tensor(np.ones(2, np.float32)), "x": value}
    refused(tmp_path, writer.file(weights), named.replace(".", r"\."))
    assert not (tmp_path / MARKER).exists()


def test_the_attack_would_have_worked(tmp_path, monkeypatch, code):
    """So that the test above means something."""
    import pickle

    monkeypatch.chdir(tmp_path)
    pickle.loads(code.pickled(attacks(code)["nested"][0]))
    assert (tmp_path / MARKER).exists()


def test_code_before_the_weights_is_refused_too(tmp_path, monkeypatch, code):
    """The old form has four more pickles."""
    monkeypatch.chdir(tmp_path)
    evil = code.pickled(attacks(code)["reduce"][0])
    with pytest.raises(torch_file.TorchFileError):
        read(tmp_path, evil)
    magic = code.pickled(0x1950A86A20F9469CFC6C)
    refused(tmp_path, magic + evil, r"posix\.system")
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((2**40,), (1,)),
        ((2**20, 2**20), (2**20, 1)),
        ((2**40,), (0,)),  # an expanded scalar: within its storage, and yet 4 TiB
        ((0, 2**40, 2**40), (1, 1, 1)),
        ((2**100,), (1,)),
        ((-1,), (1,)),
        ((2,), (-1,)),
    ],
)
def test_a_tensor_larger_than_memory_is_refused_before_allocation(
    shape, strides, tmp_path, torch_writer
):
    storage = torch_writer.storage(np.ones(4, np.float32))
    content = torch_writer.file({"big": torch_writer.view(storage, 0, shape, strides)})
    tracemalloc.start()
    refused(tmp_path, content, "big .*(more memory|negative)")
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


def test_many_expanded_tensors_are_counted_together(tmp_path, torch_zip):
    storage = torch_zip.storage(np.ones(1, np.float32))
    state = {str(i): torch_zip.view(storage, 0, (2**23,), (0,)) for i in range(9)}
    refused(tmp_path, torch_zip.file(state), "more memory")


def test_an_expanded_tensor_and_a_single_element_are_read(tmp_path, torch_writer):
    storage = torch_writer.storage(np.float32([3]))
    state = {
        "bias": torch_writer.view(storage, 0, (2, 3), (0, 0)),
        "one": torch_writer.view(storage, 0, (1, 1), (2**90, 5)),
    }
    found = read(tmp_path, torch_writer.file(state))
    assert found["bias"].tolist() == [[3, 3, 3]] * 2 and found["one"].tolist() == [[3]]


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, torch_zip):
    zeros = np.zeros(50_000_000, np.uint8)
    content = torch_zip.file({"w": torch_zip.tensor(zeros)}, compression=zipfile.ZIP_DEFLATED)
    assert len(content) < 100_000
    tracemalloc.start()
    refused(tmp_path, content, r"x/data\.pkl is compressed")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_an_archive_whose_entries_share_their_bytes_is_refused(tmp_path, torch_zip):
    content = torch_zip.file({"w": torch_zip.tensor(np.zeros(1000, np.uint8))})
    # The directory's record of x/version is made to claim a gigabyte.
    place = content.rindex(b"x/version") - 46
    changed = bytearray(content)
    changed[place + 20 : place + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    refused(tmp_path, bytes(changed), "entries claim 1,073,7")


def test_a_file_that_was_cut_off(tmp_path, torch_writer):
    content = torch_writer.file({"w": torch_writer.tensor(np.ones(1000, np.float32))})
    for end in (0, 3, 60, len(content) // 2, len(content) - 1):
        with pytest.raises(torch_file.TorchFileError, match=r"a\.pth: "):
            read(tmp_path, content[:end])


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    legacy=st.booleans(),
)
def test_any_damage_is_an_error_of_its_own_or_harmless(changes, legacy, tmp_path_factory, code):
    writer = code.Writer(legacy)
    content = bytearray(writer.file({"w": writer.tensor(np.ones((3, 5), np.float32)), "n": {}}))
    for place, value in changes:
        content[place % len(content)] = value
    path = tmp_path_factory.mktemp("torch") / "a.pth"
    path.write_bytes(content)
    try:
        torch_file.read(path)
    except torch_file.TorchFileError as error:
        assert "a.pth" in str(error)


def test_big_endian_files_are_refused(tmp_path, torch_writer):
    weights = {"w": torch_writer.tensor(np.ones(2, np.float32))}
    refused(tmp_path, torch_writer.file(weights, little_endian=False), "big-endian")


def test_an_endless_memo_number_takes_no_memory(tmp_path, torch_writer, code):
    value = {
        "w": torch_writer.tensor(np.ones(2, np.float32)),
        "x": code.Raw(b"Nr\xff\xff\xff\xff0N"),
    }
    refused(tmp_path, torch_writer.file(value), "opcode POP")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "no state dict"),
        ({}, "no state dict"),
        ({"model": {}}, "no state dict under 'model'"),
        ({"epoch": 3}, "'epoch' is a int among the weights"),
        ({"state_dict": {"lr": 0.1}}, "'lr' is a float among the weights under 'state_dict'"),
    ],
)
def test_something_else_than_weights_is_named(value, message, tmp_path, torch_writer):
    refused(tmp_path, torch_writer.file(value), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "the tar form"),
        (b"hello", "not a file of torch.save"),
        (b"", "not a file of torch.save"),
    ],
)
def test_a_file_of_another_kind_is_named(content, message, tmp_path):
    refused(tmp_path, content, message)
    assert not torch_file.is_torch_file(tmp_path / "a.pth")


def test_an_archive_of_another_kind_is_named(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/notes.txt", "hello")
    refused(tmp_path, buffer.getvalue(), r"without a data\.pkl")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(torch_file.TorchFileError, match=r"gone\.pth: cannot be read \(No such"):
        torch_file.read(tmp_path / "gone.pth")


@pytest.mark.parametrize("zip_form", [True, False])
def test_torch_itself_writes_what_is_read(zip_form, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    base = torch.arange(24.0).reshape(2, 3, 4)
    norm = torch.nn.BatchNorm3d(4)
    state = {
        "plain": base,
        "turned": base.permute(2, 0, 1),
        "part": base[1:, ::2],
        "expanded": torch.ones(1).expand(5, 6),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base),
        "flags": torch.tensor([True, False]),
        **{f"norm.{name}": value for name, value in norm.state_dict().items()},
        **{
            str(dtype).removeprefix("torch."): torch.arange(3).to(dtype)
            for dtype in (torch.float16, torch.float64, torch.int8, torch.uint8, torch.int16)
        },
    }
    optimizer = torch.optim.SGD(norm.parameters(), 0.1, momentum=0.9)
    norm(torch.randn(2, 4, 3, 3, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "a.pth"
    torch.save(
        {"model_state": state, "optimizer_state": optimizer.state_dict(), "cfg": "a: 1"},
        path,
        _use_new_zipfile_serialization=zip_form,
    )
    found = torch_file.read(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        expected = tensor.detach().numpy()
        assert found[name].dtype == expected.dtype and found[name].shape == expected.shape, name
        np.testing.assert_array_equal(found[name], expected)
    torch.save(norm, path, _use_new_zipfile_serialization=zip_form)
    with pytest.raises(torch_file.TorchFileError, match=r"torch\.nn\.modules\.batchnorm\.BatchN"):
        torch_file.read(path)
