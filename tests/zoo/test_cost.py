"""What models cost: counted from the program, equal to what their authors published."""

import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import zoo
from zoo import cost


class Attention(nn.Module):
    """Attention of a clip's pixels to each other, without weights."""

    @nn.compact
    def __call__(self, clips):
        b, *_, c = clips.shape
        x = clips.reshape(b, -1, c)
        weights = nn.softmax(jnp.einsum("bqc,bkc->bqk", x, x))
        return jnp.einsum("bqk,bkc->bqc", weights, x) + self.param("bias", nn.zeros, (c,))


class Loop(nn.Module):
    """A dense layer applied as often as there are frames, recomputed in the backward pass."""

    @nn.compact
    def __call__(self, clips):
        kernel = self.param("kernel", nn.zeros, (3, 5))

        def step(total, frame):
            return total + jax.checkpoint(jnp.matmul)(frame, kernel), None

        zeros = jnp.zeros((*clips.shape[:1], *clips.shape[2:4], 5))
        return jax.lax.scan(step, zeros, jnp.moveaxis(clips, 1, 0))[0]


def test_products_without_weights_count():
    pixels, c = 2 * 4 * 4, 3
    assert cost.flops(Attention(), (2, 4, 4, c)) == 2 * (2 * pixels * pixels * c)


def test_loops_count_each_time():
    assert cost.flops(Loop(), (7, 4, 4, 3)) == 7 * 2 * (16 * 3 * 5)


@pytest.mark.parametrize(
    ("name", "clip", "giga"),
    [
        # Multiply-adds, as the papers count: PyTorchVideo's model zoo and torchvision's metadata.
        ("slow_r50", (8, 256, 256, 3), 54.52),
        pytest.param("slowfast_r50", (32, 256, 256, 3), 65.71, marks=pytest.mark.slow),
        ("r3d_18", (16, 112, 112, 3), 40.697),
    ],
)
def test_the_published_numbers(name, clip, giga):
    model = zoo.create_model(name, num_classes=400)
    assert cost.flops(model, clip) / 2e9 == pytest.approx(giga, rel=1e-3)


@pytest.mark.parametrize("wish", [None, "xla"])
def test_the_choice_of_kernels_is_left_as_it_was(monkeypatch, wish):
    monkeypatch.delenv("ZOO_KERNELS", raising=False)
    if wish is not None:
        monkeypatch.setenv("ZOO_KERNELS", wish)
    model = zoo.create_model("cnn_small", num_classes=10)
    flops = cost.flops(model, (2, 64, 64, 3))
    assert os.environ.get("ZOO_KERNELS") == wish
    jax.eval_shape(
        model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2, 64, 64, 3), "float32")
    )
    assert cost.flops(model, (2, 64, 64, 3)) == flops
