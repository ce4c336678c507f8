"""The benchmark: what it reports, and what it refuses."""

import json

import pytest

from kernels import bench, devices, specs


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
