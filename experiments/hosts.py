"""Several hosts: how their processes find one another, agree at the start, and end together.

`jax.distributed` connects them; what they compute together is in `experiments.parallel`. Every
process runs the same command. The run folder must be one that all of them see.
"""

import importlib.util
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.config import Config, ConfigError, from_dict, to_dict

# A process that is not heard of for so long is given up, and the others end. Where its machine
# closes its connections, as after a crash of the process alone, they notice at once.
HEARTBEAT_SECONDS = 30
GOOGLE = "0x1ae0"  # the PCI vendor of TPUs
MESSAGE_BYTES = 2**16


@dataclass(frozen=True)
class Distributed:
    """Several processes that train together, each with its own devices.

    Found out on Slurm (a step of several tasks), on TPU VMs, and on Kubernetes or elsewhere from
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID or JOB_COMPLETION_INDEX.
    """

    coordinator: str = ""
    """HOST:PORT of process 0, by hand; the port must be free there."""
    num_processes: int = 0
    """How many processes there are, by hand."""
    process_id: int = -1
    """Which of them this one is, counted from 0, by hand."""
    detect: bool = True
    """Whether to look for others; without it, and without a coordinator, this process is alone."""

    def __post_init__(self) -> None:
        if not self.coordinator:
            if self.num_processes or self.process_id >= 0:
                raise ConfigError(
                    "distributed.num_processes and process_id say nothing without "
                    "distributed.coordinator: set it to HOST:PORT of process 0."
                )
            return
        port = self.coordinator.rpartition(":")[2]
        if ":" not in self.coordinator or not port.isdecimal():
            raise ConfigError(
                f"distributed.coordinator is {self.coordinator!r}: set HOST:PORT of process 0."
            )
        if self.num_processes < 1:
            raise ConfigError(
                f"distributed.num_processes is {self.num_processes}: set how many there are."
            )
        if not 0 <= self.process_id < self.num_processes:
            raise ConfigError(
                f"distributed.process_id is {self.process_id}: set a number from 0 to "
                f"{self.num_processes - 1}, another for each process."
            )


def how_to_start(
    wanted: Distributed, environment: Mapping[str, str], *, tpu: bool
) -> dict[str, Any] | None:
    """The arguments of `jax.distributed.initialize`; None: this process is alone.

    Args:
        tpu: whether this machine has TPU chips; JAX then asks its metadata about the others.

    Raises:
        ConfigError: the environment contradicts itself.
    """
    if wanted.coordinator:
        return {
            "coordinator_address": wanted.coordinator,
            "num_processes": wanted.num_processes,
            "process_id": wanted.process_id,
            # Of Slurm, which would give each process a single device.
            "cluster_detection_method": "deactivate",
        }
    if not wanted.detect:
        return None
    if "JAX_COORDINATOR_ADDRESS" in environment and "JAX_NUM_PROCESSES" in environment:
        number = environment.get("JAX_PROCESS_ID", environment.get("JOB_COMPLETION_INDEX", ""))
        count = environment["JAX_NUM_PROCESSES"]
        if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
            raise ConfigError(
                f"JAX_NUM_PROCESSES is {count!r} and JAX_PROCESS_ID or JOB_COMPLETION_INDEX "
                f"{number!r}: set a number of processes, and one below it."
            )
        if int(count) == 1:
            return None
        return {
            "coordinator_address": environment["JAX_COORDINATOR_ADDRESS"],
            "num_processes": int(count),
            "process_id": int(number),
            "cluster_detection_method": "deactivate",
        }
    step = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    if all(name in environment for name in step) and int(environment.get("SLURM_NTASKS", 1)) > 1:
        return {"cluster_detection_method": "slurm"}
    workers = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", ""))
    return {} if tpu or "," in workers else None


def _has_tpu() -> bool:
    """Whether JAX would compute on TPU chips of this machine; JAX itself is not asked, since it
    must be told of other hosts first."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if (platforms and "tpu" not in platforms) or not importlib.util.find_spec("libtpu"):
        return False
    vendors = pathlib.Path("/sys/bus/pci/devices").glob("*/vendor")
    return any(vendor.read_text().strip() == GOOGLE for vendor in vendors)


class Hosts:
    """The processes of a run: this one alone, until it starts with others.

    index: number of this one; process 0 speaks and writes. count: how many there are. agreed:
    whether all end now for the same reason.
    """

    def __init__(self) -> None:
        self.index, self.count, self.agreed = 0, 1, False

    def start(self, wanted: Distributed) -> None:
        """Connects this process with the others, before JAX looks for devices.

        Raises:
            ConfigError: they did not find one another.
        """
        arguments = how_to_start(wanted, os.environ, tpu=_has_tpu())
        if arguments is None:
            return
        import jax

        # It would take SIGTERM, upon which a run stops by itself, at the same step everywhere.
        jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"The processes did not find one another: {str(error).splitlines()[0]}; start all "
                "of them, with the same coordinator and number of processes."
            ) from error
        self.index, self.count = jax.process_index(), jax.process_count()
        if self.count > 1:
            self.say(f"{self.count} processes with {jax.device_count()} devices.")

    def say(self, line: str) -> None:
        """Prints a line once, whatever the number of processes."""
        if self.index == 0:
            print(line, flush=True)

    def from_first(
        self, make: Callable[[], tuple[pathlib.Path, Config, bool]]
    ) -> tuple[pathlib.Path, Config, bool]:
        """The run folder, the configuration, and whether to resume, as `make` tells process 0.

        Raises:
            ConfigError: what it raises there, in all processes.
        """
        if self.count == 1:
            return make()
        import numpy as np
        from jax.experimental import multihost_utils

        message = np.zeros(MESSAGE_BYTES, np.uint8)
        if self.index == 0:
            try:
                run_dir, config, resume = make()
                found = {
                    "run_dir": os.fspath(run_dir.absolute()),
                    "config": to_dict(config),
                    "resume": resume,
                }
            except ConfigError as error:
                found = {"error": str(error)}
            text = json.dumps(found).encode()
            message[: len(text)] = list(text)
        told = json.loads(
            bytes(np.asarray(multihost_utils.broadcast_one_to_all(message))).rstrip(b"\0")
        )
        if "error" in told:
            raise ConfigError(told["error"])
        run_dir = pathlib.Path(told["run_dir"])
        if not (run_dir / "config.json").exists():
            raise ConfigError(
                f"Process {self.index} does not see {run_dir}, where process 0 writes: choose an "
                "--out that is on storage of all hosts."
            )
        return run_dir, from_dict(told["config"]), told["resume"]

    def lost(self, error: Exception) -> str:
        """What to say where computing together failed."""
        return (
            f"error: process {self.index} of {self.count} has lost the others, or they it: "
            f"{str(error).splitlines()[0]}; start all processes again with --resume, as many as "
            "there are now."
        )

    def end(self, status: int) -> int:
        """Gives `status` back, or ends the process with it at once: where it alone has failed, the
        others would be waited for, and they for it."""
        if self.count > 1 and status and not self.agreed:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        return status
