"""The choice of an implementation, and that it can be asked for."""

import jax
import jax.numpy as jnp
import pytest

import kernels
from kernels import dispatch

X = jnp.zeros((1, 4, 4, 1))
TWICE = (
    dispatch.Implementation(
        "small",
        lambda x, *, by: x * by,
        platforms=("cpu",),
        refuses=lambda x, *, by: f"it multiplies by at most 9, not {by}" if by > 9 else None,
    ),
    dispatch.Implementation("xla", lambda x, *, by: x * by + 0),
)


@pytest.mark.parametrize(("platform", "name"), [("cpu", "small"), ("cuda", "xla"), ("tpu", "xla")])
def test_each_platform_gets_its_own(platform, name):
    def function(x):
        return dispatch.call("times", TWICE, None, x, by=3)

    assert dispatch.implementations(function, X, platform=platform) == {("times", name)}


def test_what_is_not_supported_is_not_chosen_and_not_replaced():
    def function(x, name=None):
        return dispatch.call("times", TWICE, name, x, by=10)

    assert dispatch.implementations(function, X) == {("times", "xla")}
    with pytest.raises(NotImplementedError, match="at most 9, not 10"):
        function(X, "small")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'triton': use one of \[.*'xla_rewrite', 'xla'\]"):
        kernels.conv(X, jnp.zeros((1, 1, 1, 1)), implementation="triton")


def test_the_variable_turns_everything_to_xla(monkeypatch):
    def function(x):
        y = kernels.conv(x, jnp.zeros((3, 3, 1, 2)))
        return kernels.max_pool(y, 2).sum()

    ran = dispatch.implementations(jax.grad(function), X)
    assert {name for _, name in ran} == {"xla_few", "xla_rewrite", "xla_index"}
    monkeypatch.setenv("ZOO_KERNELS", "xla")
    ran = dispatch.implementations(lambda x: jax.grad(function)(x), X)
    assert ran == {("conv", "xla"), ("max_pool", "xla")}
    monkeypatch.setenv("ZOO_KERNELS", "fast")
    with pytest.raises(ValueError, match="ZOO_KERNELS is 'fast'"):
        function(X)


def test_an_unknown_operator_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no operator 'min_pool'"):
        kernels.min_pool  # noqa: B018
