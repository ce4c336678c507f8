"""One process of `experiments.bench first`: weights by their name to the logits of one clip.

Prints in JSON the seconds from its start until `import zoo` was done, the weights were loaded and
the logits were there, and those of the next call, which neither traces nor compiles.
"""

import json
import sys
import time


def main() -> None:
    """Runs it for the weights that the command line names."""
    began = time.perf_counter()
    import zoo

    seconds = {"imported": time.perf_counter() - began}
    model, variables, spec = zoo.load_pretrained(sys.argv[1])
    seconds["loaded"] = time.perf_counter() - began
    import jax
    import numpy as np

    clips = np.zeros((1, spec.frames, spec.size, spec.size, spec.channels), np.float32)
    run = jax.jit(model.apply)
    jax.block_until_ready(run(variables, clips))
    seconds["logits"] = time.perf_counter() - began
    jax.block_until_ready(run(variables, clips))
    seconds["next call"] = time.perf_counter() - began - seconds["logits"]
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
