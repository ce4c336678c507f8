"""Compiling for an H200 that is not here, where jax's CUDA plugin is installed."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

import kernels
from kernels import targets_cuda
from kernels.targets import Report, Target, TargetError

H200 = Target.parse("h200")
PLUGIN = any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13))

MODULE = """
%wrapped_transpose_computation (p: bf16[8,16,64]) -> bf16[8,64,16] {
  %p = bf16[8,16,64]{2,1,0} parameter(0)
  ROOT %t = bf16[8,64,16]{2,1,0} transpose(%p), dimensions={0,2,1}
}
ENTRY %main (x: bf16[8,16,64], m: pred[3], i: s32[]) -> (bf16[8,64,16], pred[3]) {
  %wrapped_transpose = bf16[8,64,16]{2,1,0} fusion(%x), kind=kInput, calls=%wrapped_transpose_comp
  %bitcast = bf16[8,1024]{1,0} bitcast(%wrapped_transpose)
  %conv = (bf16[8,64,16]{2,1,0}, u8[0]{0}) custom-call(%bitcast), custom_call_target="__cudnn$conv"
  %copy.1 = pred[3]{0} copy(%m)
  ROOT %copy.2 = s32[]{:T(128)} copy(%i)
}
"""


def test_copies_and_kernels_are_read_from_the_optimised_program():
    copied = 2 * 8 * 64 * 16 + 3 + 4
    assert targets_cuda.read_hlo(MODULE) == Report(copies=3, copied=copied, kernels=2)


@pytest.mark.skipif(PLUGIN, reason="the CUDA plugin is installed")
def test_without_the_plugin_the_message_says_what_to_install():
    with pytest.raises(TargetError, match=r"h200 needs .* pip install 'jax\[cuda13\]'"):
        targets_cuda.compile_report(jnp.sin, [jax.ShapeDtypeStruct((8,), jnp.float32)], H200)


@pytest.mark.skipif(not PLUGIN, reason="jax's CUDA plugin is not installed")
@pytest.mark.parametrize("shape", [(2, 4, 14, 14, 216), (2, 4, 56, 56, 54)])
def test_the_depthwise_kernels_compile_without_spills_and_without_copies(shape):
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    w = jax.ShapeDtypeStruct((3, 3, 3, 1, shape[-1]), jnp.bfloat16)

    def forward(x, w):
        return kernels.conv(x, w, padding="SAME", groups=shape[-1], implementation="pallas_gpu")

    def gradients(x, w, dy):
        return jax.vjp(forward, x, w)[1](dy)

    for function, arguments in ((forward, (x, w)), (gradients, (x, w, x))):
        report = targets_cuda.compile_report(function, arguments, H200)
        assert report.spills == 0 and report.copies == 0
        assert 64 < report.registers <= 255
        assert 30_000 < report.shared <= 232_448 // 2  # two blocks share a multiprocessor


@pytest.mark.skipif(not PLUGIN, reason="jax's CUDA plugin is not installed")
def test_the_rewrites_leave_no_copy_of_an_activation():
    x = jax.ShapeDtypeStruct((2, 8, 28, 28, 64), jnp.bfloat16)
    for window in ((1, 3, 3), (3, 1, 1), (1, 1, 1)):
        w = jax.ShapeDtypeStruct((*window, 64, 128), jnp.bfloat16)
        y = jax.eval_shape(lambda x, w: kernels.conv(x, w, padding="SAME"), x, w)

        def gradients(x, w, dy, name=None):
            y, pull = jax.vjp(
                lambda x, w: kernels.conv(x, w, padding="SAME", implementation=name), x, w
            )
            return y, pull(dy)

        ours = targets_cuda.compile_report(gradients, (x, w, y), H200)
        theirs = targets_cuda.compile_report(
            lambda x, w, dy: gradients(x, w, dy, "xla"), (x, w, y), H200
        )
        # At most the weights, once for each of the three convolutions.
        assert ours.copied <= 3 * 2 * w.size < theirs.copied


@pytest.mark.skipif(not PLUGIN, reason="jax's CUDA plugin is not installed")
@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [((4, 28, 28, 64), (3, 3), (2, 2)), ((2, 8, 14, 14, 48), (3, 3, 3), (1, 2, 2))],
)
def test_the_pool_is_one_kernel_each_way(shape, window, stride):
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)

    def pool(x):
        return kernels.max_pool(x, window, stride=stride, padding="SAME")

    def gradients(x, dy):
        y, pull = jax.vjp(pool, x)
        return y, pull(dy)

    report = targets_cuda.compile_report(gradients, (x, jax.eval_shape(pool, x)), H200)
    assert (report.kernels, report.copies) == (2, 0)
