"""What a device can do, for estimates and benchmarks. Imports nothing local."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Device:
    """Peak rates of one chip.

    bytes_per_second: device memory. flops: dense products per data type, multiply and add counted
    as two. measured: True where the rates were measured by a copy and a matrix product, False
    where they are the vendor's.
    """

    name: str
    bytes_per_second: float
    flops: dict[str, float]
    measured: bool

    def floor(self, flops: float, bytes_moved: float, dtype: str) -> float:
        """Seconds below which no program can stay that computes and moves this much."""
        return max(flops / self.flops[dtype], bytes_moved / self.bytes_per_second)


# Keys are lower-case parts of jax.Device.device_kind, the more special ones first.
KNOWN = {
    "h200": Device("NVIDIA H200", 4.3e12, {"bfloat16": 790e12, "float32": 67e12}, True),
    "h100": Device("NVIDIA H100 SXM", 3.35e12, {"bfloat16": 989e12, "float32": 67e12}, False),
    "a100": Device("NVIDIA A100 80GB", 2.0e12, {"bfloat16": 312e12, "float32": 19.5e12}, False),
    "v5 lite": Device("TPU v5e", 819e9, {"bfloat16": 197e12, "float32": 49e12}, False),
    "v5p": Device("TPU v5p", 2765e9, {"bfloat16": 459e12, "float32": 115e12}, False),
    "v6": Device("TPU v6e", 1640e9, {"bfloat16": 918e12, "float32": 230e12}, False),
}


def known(device_kind: str) -> Device | None:
    """The record for a jax device's `device_kind`, or None (every CPU: measure it)."""
    kind = device_kind.lower()
    return next((record for part, record in KNOWN.items() if part in kind), None)
