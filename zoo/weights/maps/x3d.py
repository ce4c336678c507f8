"""Names of PyTorchVideo's X3D.

In its stem `conv_t` is the spatial convolution and `conv_xy` the temporal one.
"""

from zoo.models.x3d import X3DConfig
from zoo.weights import convert
from zoo.weights.convert import conv_norm


def table(config: X3DConfig) -> convert.Table:
    """The names for a config: the number of the head follows from that of the stages."""
    block, target = "blocks.{i}.res_blocks.{j}", "stage{i}_{j}"
    branch, squeeze = f"{block}.branch2", f"{target}/squeeze_excite"
    last = f"blocks.{len(config.depths) + 1}"
    return convert.Table(
        (
            *convert.conv("blocks.0.conv.conv_t", "stem_spatial"),
            *conv_norm("blocks.0.conv.conv_xy", "blocks.0.norm", "stem"),
            *conv_norm(f"{branch}.conv_a", f"{branch}.norm_a", f"{target}/a"),
            *conv_norm(f"{branch}.conv_b", f"{branch}.norm_b.0", f"{target}/b"),
            *convert.pointwise(f"{branch}.norm_b.1.block.0", f"{squeeze}/reduce"),
            *convert.pointwise(f"{branch}.norm_b.1.block.2", f"{squeeze}/expand"),
            *conv_norm(f"{branch}.conv_c", f"{branch}.norm_c", f"{target}/c"),
            *convert.conv(f"{block}.branch1_conv", f"{target}/shortcut"),
            *convert.batch_norm(f"{block}.branch1_norm", f"{target}/shortcut_norm"),
            *conv_norm(f"{last}.pool.pre_conv", f"{last}.pool.pre_norm", "head_expand"),
            *convert.conv(f"{last}.pool.post_conv", "head_features"),
            *convert.linear(f"{last}.proj", "head"),
        ),
        (convert.BATCHES_TRACKED,),
    )
