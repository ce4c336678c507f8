"""What every operator promises, one property after the other, against its definition in float64."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import calls
from kernels.specs import Spec

SAME = "SAME"
CASES = {
    "few_channels": ("conv", Spec("", (2, 9, 7, 3), (3, 3), (2, 2), SAME, 5)),
    "dense": ("conv", Spec("", (1, 5, 6, 8), (3, 3), (1, 1), SAME, 6)),
    "3d": ("conv", Spec("", (1, 3, 7, 5, 6), (3, 3, 3), (1, 2, 2), SAME, 4)),
    "product": ("conv", Spec("", (2, 3, 5, 4, 6), (1, 1, 1), (1, 1, 1), "VALID", 7)),
    "temporal": ("conv", Spec("", (1, 5, 3, 4, 8), (3, 1, 1), (2, 1, 1), SAME, 6)),
    "groups": ("conv", Spec("", (1, 5, 6, 6), (3, 3), (1, 1), SAME, 4, 2)),
    "depthwise": ("conv", Spec("", (1, 3, 7, 5, 9), (3, 3, 3), (1, 2, 2), SAME, 9, 9)),
    "depthwise_silu": (
        "depthwise_conv3d",
        Spec("", (1, 2, 5, 4, 6), (3, 3, 3), (1, 1, 1), SAME, 6, 6, "silu"),
    ),
    "pool": ("max_pool", Spec("", (2, 7, 9, 5), (3, 3), (2, 2), SAME)),
    "block": ("conv_bias_relu_pool", Spec("", (2, 8, 7, 3), (3, 3), (1, 1), "VALID", 4)),
    "channel_sums": ("channel_sums", Spec("", (2, 5, 7, 6))),
    "spatial_sum": ("spatial_sum", Spec("", (2, 3, 5, 7, 6))),
    "attention": ("attention", Spec("", (2, 103, 2, 8), keys=101)),
}
ONCE = ("pool", "block")  # differentiable once
SUMS = ("channel_sums", "spatial_sum")
SEVERAL = ("block", "depthwise_silu", "attention")  # operations, each of which rounds its result


def function(case, name=None):
    return calls.function_of(*CASES[case], name)


def arrays(case, dtype=jnp.float32, seed=0):
    return calls.random_arrays(*CASES[case], dtype, seed)


def slopes_for(case, given, seed=7):
    """Random gradients by the results, and the value with all gradients as one function of both."""
    shapes = jax.tree.leaves(jax.eval_shape(function(case), *given))
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    slopes = [jax.random.normal(k, s.shape, s.dtype) for k, s in zip(keys, shapes, strict=True)]
    return slopes[0] if len(slopes) == 1 else tuple(slopes)


def exact(case, slopes, given):
    """The definition's value and gradients in float64, from the same numbers."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (slopes, *given))
        found = jax.jit(calls.with_gradients(function(case, "xla")))(*wide)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]


def check_against_float64(case):
    given = arrays(case)
    slopes = slopes_for(case, given)
    found = jax.jit(calls.with_gradients(function(case)))(slopes, *given)
    for ours, theirs in zip(jax.tree.leaves(found), exact(case, slopes, given), strict=True):
        assert theirs.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients(case):
    check_against_float64(case)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, 54, 64, 108, 432])
@pytest.mark.parametrize("case", ["dense", "3d", "depthwise", "pool"])
def test_channels_and_a_single_frame(case, channels, monkeypatch):
    operator, spec = CASES[case]
    groups = channels if spec.groups > 1 else 1
    shape = (1, 1, 5, 5, channels) if len(spec.x) == 5 else (1, 7, 5, channels)
    outputs = channels if groups > 1 else spec.outputs
    new = Spec("", shape, spec.window, spec.stride, spec.padding, outputs, groups)
    monkeypatch.setitem(CASES, case, (operator, new))
    check_against_float64(case)


def loss(case, name=None):
    """A number that depends on every result, as a function of the operator's arrays."""

    def run(*given):
        terms = jax.tree.map(lambda y: jnp.sin(y).sum(), function(case, name)(*given))
        return jax.tree.reduce(jnp.add, terms)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c not in ("pool", *SUMS)])
def test_each_gradient_alone_is_that_of_all(case):
    given = arrays(case)
    numbers = range(len(given))
    together = jax.jit(jax.grad(loss(case), tuple(numbers)))(*given)
    alone = [jax.jit(jax.grad(loss(case), number))(*given) for number in numbers]
    for ours, theirs in zip(alone, together, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_second_derivative_is_right_or_refused(case):
    given = arrays(case)

    def size(name):
        def run(*given):
            slopes = jax.grad(loss(case, name), tuple(range(len(given))))(*given)
            return sum((slope**2).sum() for slope in slopes)

        return jax.jit(jax.grad(run))(*given)

    if case in ONCE:
        with pytest.raises(NotImplementedError, match="differentiable once"):
            size(None)
    else:
        found, expected = size(None), size("xla")  # elements of it cancel to nearly nothing
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c not in SEVERAL])
def test_half_precision_is_as_good_as_float32_sums(case):
    """No further from float64 than the definition in float32, rounded, and one unit more."""
    given = arrays(case, jnp.bfloat16)
    slopes = slopes_for(case, given)
    found = jax.jit(calls.with_gradients(function(case)))(slopes, *given)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (slopes, *given))
    summed = jax.jit(calls.with_gradients(function(case, "xla")))(*wide)
    leaves = map(jax.tree.leaves, (found, summed))
    for ours, reference, true in zip(*leaves, exact(case, slopes, given), strict=True):
        rounded = np.float64(reference.astype(ours.dtype))
        unit = 2.0 ** np.floor(np.log2(np.abs(true) + 2.0**-20)) * 2.0**-7
        assert (np.abs(np.float64(ours) - true) <= np.abs(rounded - true) + unit).all()


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c not in ("attention", "depthwise_silu")])
def test_what_is_not_finite_stays_where_the_definition_has_it(case):
    x, *rest = arrays(case)
    middle = tuple(size // 2 for size in x.shape[1:-1])
    x = x.at[(0, *middle, 1)].set(jnp.nan).at[(0, *middle, 2)].set(-jnp.inf)
    x = x.at[(-1, *(0,) * len(middle), 0)].set(jnp.inf)
    ours, theirs = (jax.tree.leaves(jax.jit(function(case, n))(x, *rest)) for n in (None, "xla"))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
sys.path.insert(0, sys.argv[1])
import test_matrix
assert jax.device_count() == 2
for case in test_matrix.CASES:
    gradient = jax.value_and_grad(test_matrix.loss(case))
    parts = [test_matrix.arrays(case, seed=seed) for seed in range(2)]
    both = jax.pmap(gradient)(*(jnp.stack(pair) for pair in zip(*parts)))
    for number, given in enumerate(parts):
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(jax.jit(gradient)(*given))):
            np.testing.assert_allclose(a[number], b, rtol=1e-4, atol=1e-4, err_msg=case)
print("all", len(test_matrix.CASES))
"""


@pytest.mark.slow
def test_every_operator_runs_under_pmap():
    folder = str(pathlib.Path(__file__).parent)
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == f"all {len(CASES)}", done.stderr[-3000:]
