"""Names of VideoMAE in transformers, as version 5 writes them and as the published files have them.

The published files keep the biases beside the projections: `q_bias` and `v_bias`.
"""

from zoo.models.videomae import VideoMAEConfig
from zoo.weights import convert


def table(config: VideoMAEConfig) -> convert.Table:
    """The names; the config changes none."""
    source, target = "videomae.encoder.layer.{i}", "block{i}"
    attention = f"{source}.attention.attention"
    rules = (
        *convert.conv("videomae.embeddings.patch_embeddings.projection", "patches", bias=True),
        *convert.linear(f"{attention}.query", f"{target}/attention/query"),
        *convert.linear(f"{attention}.key", f"{target}/attention/key", bias=False),
        *convert.linear(f"{attention}.value", f"{target}/attention/value"),
        *convert.linear(f"{source}.attention.output.dense", f"{target}/attention/out"),
        *convert.linear(f"{source}.intermediate.dense", f"{target}/mlp/hidden"),
        *convert.linear(f"{source}.output.dense", f"{target}/mlp/out"),
        *convert.norm(f"{source}.layernorm_before", f"{target}/norm1"),
        *convert.norm(f"{source}.layernorm_after", f"{target}/norm2"),
        *convert.norm("fc_norm", "norm"),
        *convert.linear("classifier", "head"),
    )
    aliases = (
        (f"{attention}.q_bias", f"{attention}.query.bias"),
        (f"{attention}.v_bias", f"{attention}.value.bias"),
    )
    return convert.Table(rules, aliases=aliases)
