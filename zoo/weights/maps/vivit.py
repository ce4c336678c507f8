"""Names of ViViT in transformers, as version 5 writes them and as the published files have them."""

from zoo.models.vivit import ViViTConfig
from zoo.weights import convert
from zoo.weights.convert import Rule

# (name of a layer in the published files, its name in version 5)
_OLDER = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("layernorm_before", "layernorm_before"),
    ("layernorm_after", "layernorm_after"),
)


def table(config: ViViTConfig) -> convert.Table:
    """The names; the config changes none."""
    source, target = "vivit.layers.{i}", "block{i}"
    rules = (
        *convert.conv("vivit.embeddings.patch_embeddings.projection", "patches", bias=True),
        Rule("vivit.embeddings.cls_token", "params/class_token", "vector"),
        Rule("vivit.embeddings.position_embeddings", "params/positions", "without_batch"),
        *convert.linear(f"{source}.attention.q_proj", f"{target}/attention/query"),
        *convert.linear(f"{source}.attention.k_proj", f"{target}/attention/key"),
        *convert.linear(f"{source}.attention.v_proj", f"{target}/attention/value"),
        *convert.linear(f"{source}.attention.o_proj", f"{target}/attention/out"),
        *convert.linear(f"{source}.mlp.fc1", f"{target}/mlp/hidden"),
        *convert.linear(f"{source}.mlp.fc2", f"{target}/mlp/out"),
        *convert.norm(f"{source}.layernorm_before", f"{target}/norm1"),
        *convert.norm(f"{source}.layernorm_after", f"{target}/norm2"),
        *convert.norm("vivit.layernorm", "norm"),
        *convert.linear("classifier", "head"),
    )
    aliases = tuple(
        (f"vivit.encoder.layer.{{i}}.{older}.{kind}", f"{source}.{newer}.{kind}")
        for older, newer in _OLDER
        for kind in ("weight", "bias")
    )
    return convert.Table(rules, aliases=aliases)
