"""Video models, their weights, and video in and out.

    import zoo
    zoo.list_models("cnn*")
    model = zoo.create_model("cnn_small", num_classes=10)
    model, variables, spec = zoo.load_pretrained("cnn_small.moving_shapes")
    model, variables, spec = zoo.load_pretrained("x3d_m.k400")  # fetched once

Importing this package loads no jax; the functions do when they need it.
"""

import kernels as kernels  # sets what XLA must find in the environment before jax is imported
from zoo.registry import create_model, list_models, list_weights
from zoo.weights.load import read as read_weights
from zoo.weights.load import save as save_weights
from zoo.weights.pretrained import import_weights, load_pretrained

__all__ = [
    "create_model",
    "import_weights",
    "list_models",
    "list_weights",
    "load_pretrained",
    "read_weights",
    "save_weights",
]
