"""A learned video codec that is fitted to each video; files end in .zvc.

    from zoo import codec
    codec.compress("in.mp4", "out.zvc", quality=60)
    codec.decompress("out.zvc", "back.mp4")

Importing this package loads no jax. No module has the name of a function: importing the one would
hide the other.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.codec.decoding import decode as decode
    from zoo.codec.decoding import decompress as decompress
    from zoo.codec.decoding import info as info
    from zoo.codec.encoding import compress as compress

_MODULES = {
    "compress": "encoding",
    "decode": "decoding",
    "decompress": "decoding",
    "info": "decoding",
}
__all__ = ["compress", "decode", "decompress", "info"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'zoo.codec' has no {name!r}: it has {__all__}")
    return getattr(importlib.import_module(f"zoo.codec.{_MODULES[name]}"), name)
