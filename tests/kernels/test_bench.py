"""The benchmark: what it reports, and what it refuses."""

import json

import jax
import pytest

from kernels import bench, devices, members, specs


def test_a_table_and_a_record(tmp_path, capsys, monkeypatch):
    record = devices.Device("a test", 1e9, {"float32": 1e9}, measured=False)
    monkeypatch.setattr(bench, "this_device", lambda dtype: record)
    small = specs.Spec("small", (1, 8, 8, 4), (2, 2), (2, 2))
    monkeypatch.setattr(specs, "ALL", {"max_pool": (small,)})
    file = tmp_path / "bench.json"
    bench.main(["small", "--rounds", "3", "--seconds", "1", "--json", str(file)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["small", passes, name]
        for passes in ("forward", "gradients")
        for name in ("xla", "xla_index")
    ]
    results = json.loads(file.read_text())["results"]
    assert all(0 < result["seconds"][0] <= result["seconds"][-1] for result in results)


def test_on_a_gpu_what_waits_for_a_measurement_is_a_candidate():
    stage, down = (
        next(s for s in specs.DEPTHWISE if s.name == name)
        for name in ("x3d_m.stage2", "x3d_m.stage3_down")
    )

    def names(spec, platform):
        return set(bench.functions("depthwise_conv3d", spec, "bfloat16", platform))

    assert names(stage, "gpu") == {"xla", "chosen", "xla_shift", "pallas_gpu"}
    assert names(down, "gpu") == {"xla", "chosen", "xla_shift"}  # the kernel has no stride
    assert names(stage, "cpu") == {"xla", "chosen"}
    assert set(bench.functions("max_pool", specs.POOL[0], platform="gpu")) == {"xla", "chosen"}


def test_the_floor_is_the_slower_of_memory_and_arithmetic():
    slow = devices.Device("slow", 10.0, {"float32": 1e9}, measured=False)
    pool = specs.Spec("pool", (1, 4, 4, 1), (2, 2), (2, 2))
    assert bench.floor("max_pool", pool, "float32", slow) == (16 + 4) * 4 / 10
    weak = devices.Device("weak", 1e9, {"float32": 10.0}, measured=False)
    conv = specs.Spec("conv", (1, 4, 4, 2), (3, 3), (1, 1), "VALID", 3)
    assert bench.floor("conv", conv, "float32", weak) == 2 * 4 * 3 * 18 / 10


def test_an_unknown_shape_is_named(capsys):
    with pytest.raises(SystemExit):
        bench.main(["x3d_s.stage9"])
    assert "no shape is called x3d_s.stage9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H200", "NVIDIA H200"),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v6 lite", "TPU v6e"),
        ("cpu", None),
    ],
)
def test_devices_are_known_by_their_kind(kind, name):
    record = devices.known(kind)
    assert (record and record.name) == name


@pytest.mark.parametrize("shared", [True, False])
def test_members_are_compared(shared):
    found = members.compare(2, 2, 1, shared, size=22)
    assert set(found) == {"loop", "vmap", "loop processor", "vmap processor"}
    assert min(found.values()) > 0


def test_members_that_disagree_are_noticed(monkeypatch):
    real = members.loss

    @jax.custom_batching.custom_vmap
    def wrong(a):
        return a

    @wrong.def_vmap
    def rule(size, batched, a):
        return a + 1, True

    def loss(layers, x, labels):
        return real(layers, x, labels) + jax.lax.stop_gradient(wrong(x[0, 0, 0, 0] * 0))

    monkeypatch.setattr(members, "loss", loss)
    with pytest.raises(RuntimeError, match="differ by"):
        members.compare(2, 1, 1, False, size=22)


def test_members_and_shapes_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        bench.main(["cpu.depthwise", "--members", "2"])
    assert "and no shapes" in capsys.readouterr().err


def test_members_are_reported(capsys, monkeypatch):
    seconds = {"loop": 0.3, "vmap": 0.2, "loop processor": 0.5, "vmap processor": 0.4}
    monkeypatch.setattr(members, "compare", lambda *a: seconds)
    bench.main(["--members", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("1.50 times as fast" in line for line in lines)
