"""The benchmark: what it reports, and what it refuses."""

import dataclasses
import json
import xml.etree.ElementTree

import jax
import pytest

from kernels import bench, calls, check, devices, members, roofline, specs, torch_baseline


def test_a_table_a_record_and_a_picture(tmp_path, capsys, monkeypatch):
    record = devices.Device("a test", 1e9, {"float32": 1e9}, measured=False)
    monkeypatch.setattr(bench, "this_device", lambda dtype: record)
    small = specs.Spec("small", (1, 8, 8, 4), (2, 2), (2, 2))
    monkeypatch.setattr(specs, "ALL", {"max_pool": (small,)})
    file, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    options = ["small", "--rounds", "3", "--seconds", "1", "--json", str(file), "--plot", str(plot)]
    bench.main(options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["small", passes, name]
        for passes in ("forward", "gradients")
        for name in ("xla", "xla_index")
    ]
    results = json.loads(file.read_text())["results"]
    assert all(0 < result["seconds"][0] <= result["seconds"][-1] for result in results)
    for result in results:
        assert result["share"] == result["floor"] / result["median"]
        assert result["floor"] == max(result["operations"], result["moved"]) / 1e9
    root = xml.etree.ElementTree.fromstring(plot.read_text())
    titles = [element.text for element in root.iter() if element.tag.endswith("}title")]
    assert [title.partition(":")[0] for title in titles] == [
        f"{result['shape']}, {result['passes']}, {result['candidate']}" for result in results
    ]


def test_candidates_are_compared_with_the_definition(tmp_path, capsys, monkeypatch):
    record = devices.Device("a test", 1e9, {"bfloat16": 1e9}, measured=False)
    monkeypatch.setattr(bench, "this_device", lambda dtype: record)
    small = specs.Spec("small", (1, 8, 8, 4), (3, 3), (1, 1), "VALID", 4)
    monkeypatch.setattr(specs, "ALL", {"conv": (small,)})

    def refused(x, w):
        raise NotImplementedError("no such chip")

    real = bench.functions
    wrong = {"wrong": lambda x, w: real("conv", small)["xla"](x, w) * 1.1, "refused": refused}
    monkeypatch.setattr(bench, "functions", lambda *a: real(*a) | wrong)
    monkeypatch.setattr(
        bench, "_slopes", lambda function, arrays: real("conv", small)["xla"](*arrays)
    )
    file = tmp_path / "bench.json"
    options = ["small", "--rounds", "3", "--seconds", "1", "--dtype", "bfloat16"]
    assert bench.main([*options, "--check", "--json", str(file)]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[-6] for line in out.splitlines()] == ["right:", "right:", "WRONG:"] * 2
    found = json.loads(file.read_text())
    assert found["failures"] == err.splitlines()[1:]
    assert "small, forward, refused does not run: no such chip" in found["failures"]
    for result in found["results"]:
        passed = result["check"]["error"] <= result["check"]["limit"]
        assert passed == (result["candidate"] != "wrong")
        assert result["memory"] >= 0


def test_what_is_not_a_number_does_not_pass():
    one = jax.numpy.ones(3)
    assert check.compare(one, one, one, ["float32"]).passed
    assert not check.compare(one.at[1].set(jax.numpy.nan), one, one, ["float32"]).passed


def test_a_mark_at_the_roof_lies_on_the_roof():
    at_ridge = roofline.Point("a<b", "xla", False, 1e9, 1e8, 1e9 / 2e10)
    text = roofline.picture("a test", 2e10, 2e9, [at_ridge])
    elements = list(xml.etree.ElementTree.fromstring(text).iter())
    roof = next(e.get("d") for e in elements if e.get("class") == "roof")
    (marked,) = (e for e in elements if e.tag.endswith("}g") and e[0].tag.endswith("}title"))
    place = marked.get("transform").removeprefix("translate(").removesuffix(")")
    assert f"L{place}H" in roof  # where the slope meets the level part
    assert marked[0].text == "a<b: 50.000 ms, 100% of the roofline"


@pytest.mark.parametrize("name", calls.known())
def test_every_shape_is_a_call(name):
    operator, spec = calls.known()[name]
    spec = spec.batch(1)
    arrays = calls.arrays_of(operator, spec, "float32")
    for implementation in ("xla", None):
        function = calls.function_of(operator, spec, implementation)
        result = jax.eval_shape(function, *arrays)
        slopes = jax.eval_shape(calls.with_gradients(function), result, *arrays)[1]
        assert [slope.shape for slope in slopes] == [array.shape for array in arrays]
    forward, both = (calls.work(operator, spec, "float32", g) for g in (False, True))
    assert forward[0] < both[0] <= 3 * forward[0] and forward[1] < both[1] <= 3 * forward[1]


def test_names_are_unique():
    shapes = [spec.name for group in specs.ALL.values() for spec in group]
    assert len(shapes) == len(set(shapes))


def test_pytorch_has_every_operator():
    pytest.importorskip("torch")
    for operator, group in specs.ALL.items():
        for spec in (group[-1].batch(1), group[0].batch(1)):
            small = dataclasses.replace(spec, x=(1, *(9,) * (len(spec.x) - 2), spec.x[-1]))
            for gradients in (False, True):
                found = torch_baseline.candidates(operator, small, gradients, 1)
                assert list(found) == ["torch", "torch channels_last"]
                assert all(run(0) == () for run in found.values())


def test_on_a_gpu_what_waits_for_a_measurement_is_a_candidate():
    stage, down = (
        next(s for s in specs.DEPTHWISE if s.name == name)
        for name in ("x3d_m.stage2", "x3d_m.stage3_down")
    )

    def names(spec, platform):
        return set(bench.functions("conv", spec, "bfloat16", platform))

    assert names(stage, "gpu") == {"xla", "chosen", "xla_shift", "pallas_gpu"}
    assert names(down, "gpu") == {"xla", "chosen", "xla_shift"}  # the kernel has no stride
    assert names(stage, "cpu") == {"xla", "chosen"}
    assert set(bench.functions("max_pool", specs.POOL[0], platform="gpu")) == {"xla", "chosen"}


def test_the_floor_is_the_slower_of_memory_and_arithmetic():
    def floor(operator, spec, device):
        return device.floor(*calls.work(operator, spec, "float32", False), "float32")

    slow = devices.Device("slow", 10.0, {"float32": 1e9}, measured=False)
    pool = specs.Spec("pool", (1, 4, 4, 1), (2, 2), (2, 2))
    assert floor("max_pool", pool, slow) == (16 + 4) * 4 / 10
    weak = devices.Device("weak", 1e9, {"float32": 10.0}, measured=False)
    conv = specs.Spec("conv", (1, 4, 4, 2), (3, 3), (1, 1), "VALID", 3)
    assert floor("conv", conv, weak) == 2 * 4 * 3 * 18 / 10
    grouped = dataclasses.replace(conv, x=(1, 4, 4, 6), outputs=6, groups=6)
    assert floor("conv", grouped, weak) == 2 * 4 * 6 * 9 / 10


def test_the_work_of_attention():
    spec = specs.Spec("attention", (2, 5, 3, 4), keys=7)
    forward = (2 * 2 * 2 * 3 * 5 * 7 * 4, (2 * 2 * 5 * 3 * 4 + 2 * 2 * 7 * 3 * 4) * 4)
    assert calls.work("attention", spec, "float32", False) == forward
    own = dataclasses.replace(spec, keys=0)  # as many keys as queries
    assert calls.work("attention", own, "float32", True) == (3 * 2 * 2 * 2 * 3 * 25 * 4, 11 * 480)


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
