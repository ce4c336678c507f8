"""Published state dicts, whatever file they are in."""

import os
import pathlib
import re
from typing import TYPE_CHECKING

from zoo.weights import tf_checkpoint, torch_file
from zoo.weights.errors import WeightsError

if TYPE_CHECKING:
    import numpy as np


def read(path: str | os.PathLike, *, own_names: bool = False) -> dict[str, "np.ndarray"]:
    """The entries of a file of torch.save, of safetensors or of TensorFlow, name to array.

    Which it is is told from the content, because published names end in anything or nothing.
    own_names is of TensorFlow's, as in `tf_checkpoint.read`.

    Raises:
      WeightsError: the file is absent, damaged or of another kind.
    """
    path = pathlib.Path(path)
    if _is_safetensors(path):
        return _read_safetensors(path)
    if tf_checkpoint.is_checkpoint(path):
        return tf_checkpoint.read(path, own_names=own_names)
    if re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        raise WeightsError(f"{path}: a part of a TensorFlow checkpoint; give its .index file")
    return torch_file.read(path)


def _is_safetensors(path: pathlib.Path) -> bool:
    """Whether it begins with the length of a JSON object and that object."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:  # is named by whoever reads it
        return False
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30


def _read_safetensors(path: pathlib.Path) -> dict[str, "np.ndarray"]:
    import numpy as np
    import safetensors

    arrays = {}
    try:
        # The library checks every size against the file's before it allocates.
        with safetensors.safe_open(path, "numpy") as file:
            names = file.keys()
            for name in names:
                array = file.get_tensor(name)
                # bfloat16 comes as a type that numpy itself does not have.
                arrays[name] = array if array.dtype.kind in "fiub" else array.astype(np.float32)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: damaged ({error}); download the file again") from error
    return arrays
