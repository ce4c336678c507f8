"""python -m experiments.bench first."""

import os

import pytest

from experiments import bench
from zoo import cache


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_compiled(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))  # restored afterwards; the command sets it
    assert bench.main(["first", "--weights", "x3d_xs.k400", "--rounds", "1"]) == 0
    _, cold, warm = (line.split() for line in capsys.readouterr().out.splitlines())
    assert cold[:2] == ["x3d_xs.k400", "cold"] and warm[:2] == ["x3d_xs.k400", "warm"]
    # Total, import, load, logits: each includes what came before.
    for line in (cold, warm):
        total, imported, loaded, logits, following = map(float, line[2:])
        assert imported < loaded < logits < total and following > 0
    assert float(warm[5]) < float(cold[5])


def test_unknown_weights_are_named(capsys):
    with pytest.raises(SystemExit, match=r"did you mean 'x3d_m\.k400'"):
        bench.main(["first", "--weights", "x3d_m.k40"])


def test_compiled_programs_are_kept_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    cache.keep_compiled()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    cache.keep_compiled()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == ""
