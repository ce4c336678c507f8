"""What a TensorFlow checkpoint of a program of objects says about the names of its variables.

Such a checkpoint names a variable by the shortest way to it from the object that was saved. In a
SavedModel that is often a place in a list, `variables/12`, which differs between versions of the
program. Beside the tensors lies a protocol buffer of the objects
(tensorflow/core/protobuf/trackable_object_graph.proto), where each variable has also the name that
the program gave it, as `TransNet/dense/kernel`.
"""

from typing import Any

from zoo.weights import sstable

# The name of that protocol buffer among the tensors.
KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"


def names(graph: bytes) -> dict[str, str]:
    """The variables' own names, by the names under which the checkpoint has their tensors.

    Raises sstable.TableError for anything but a whole protocol buffer.
    """
    found: dict[str, str] = {}
    for number, node in sstable.fields(graph):
        if number != 1:
            continue
        for kind, attribute in sstable.fields(_message(node)):
            if kind != 2:
                continue
            values = dict(sstable.fields(_message(attribute)))
            full_name, key = (_message(values.get(field, b"")).decode() for field in (2, 3))
            if full_name and key:
                found[key] = full_name
    return found


def _message(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise sstable.TableError("a number in place of a message")
    return value
