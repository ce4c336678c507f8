"""Names in Google's checkpoints of MoViNet: `model/layer_with_weights-0/layer_with_weights-3/...`.

Those that tensorflow/models gives (official/projects/movinet) under tf.train.Checkpoint(model=...):
a name is the way from object to object, and the blocks are counted through all stages. Layer 0 of
the whole is the backbone, whose layer 0 is the first convolution, and layer 1 is the classifier.
The stream networks' convolutions, of two axes, lie one object deeper.
"""

from zoo.models.movinet_presets import MoViNetConfig
from zoo.weights import convert
from zoo.weights.convert import Rule

_BACKBONE = "model/layer_with_weights-0/layer_with_weights"


def table(config: MoViNetConfig) -> convert.Table:
    """The names for a config."""
    causal = config.causal
    kernel = "_conv/kernel" if causal else "kernel"
    inner = "inner_pointwise2d" if causal else "inner_pointwise"

    def conv_norm(source: str, target: str) -> list[Rule]:
        conv = Rule(f"{source}/_conv/{kernel}", f"params/{target}/conv/kernel")
        return [conv, *_norm(f"{source}/_batch_norm", f"{target}/norm")]

    def dense(source: str, target: str) -> list[Rule]:
        place = f"{source}/_conv/_conv" if causal else f"{source}/_conv"
        return [
            Rule(f"{place}/kernel", f"params/{target}/kernel", inner),
            Rule(f"{place}/bias", f"params/{target}/bias"),
        ]

    names = [f"b{i}_l{j}" for i, stage in enumerate(config.blocks) for j in range(len(stage))]
    rules = conv_norm(f"{_BACKBONE}-0/_stem", "conv1")
    for number, target in enumerate(names, start=1):
        source = f"{_BACKBONE}-{number}"
        rules += conv_norm(f"{source}/_expansion", f"{target}/expand")
        rules += conv_norm(f"{source}/_projection", f"{target}/project")
        rules += conv_norm(f"{source}/_skip/_projection", f"{target}/res")
        rules += dense(f"{source}/_attention/_se_reduce", f"{target}/se/fc1")
        rules += dense(f"{source}/_attention/_se_expand", f"{target}/se/fc2")
        rules.append(Rule(f"{source}/_mobile_bottleneck/_rezero/scale", f"params/{target}/alpha"))
        feature = f"{source}/_feature"
        if causal:
            for part, norm, layer in (("", "", "deep"), ("_temporal",) * 2 + ("deep_time",)):
                place = f"{feature}/_conv{part}/_conv/depthwise_kernel"
                rules.append(Rule(place, f"params/{target}/{layer}/conv/kernel", "depthwise"))
                rules += _norm(f"{feature}/_batch_norm{norm}", f"{target}/{layer}/norm")
        else:
            rules += conv_norm(feature, f"{target}/deep")
    rules += conv_norm(f"{_BACKBONE}-{len(names) + 1}/_project", "conv7")
    rules += dense("model/layer_with_weights-1/_head", "hidden")
    rules += dense("model/layer_with_weights-1/_classifier", "head")
    return convert.Table(
        tuple(rules),
        ignored=("save_counter", "global_step", "optimizer/{path}"),
        aliases=(("model/_backbone/{path}", "model/layer_with_weights-0/{path}"),),
    )


def _norm(source: str, target: str) -> list[Rule]:
    names = {"gamma": "params/{}/scale", "beta": "params/{}/bias"}
    names |= {"moving_mean": "batch_stats/{}/mean", "moving_variance": "batch_stats/{}/var"}
    return [Rule(f"{source}/{name}", path.format(target)) for name, path in names.items()]
