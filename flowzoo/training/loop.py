"""How long, on what and how exactly runs are trained: conf/trainer, and how the data reach the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from flowzoo.data.memory import gib
from flowzoo.runs.store import Unfit


@dataclass(frozen=True)
class Loop:
    """The defaults are those of conf/trainer/solo.yaml. `accelerator`, `devices` and `num_nodes` are Lightning's."""

    steps: int = 20_000
    batch_size: int = 128  # over all devices
    accumulate: int = 1  # parts of a batch, one after another, where all at once does not fit; no other run
    precision: str = "auto"  # "bf16-mixed" on a GPU that has it, "32-true" elsewhere; or one of these, or "64-true"
    clip_norm: float | None = 1.0  # of the gradient
    compile: bool | str = "auto"  # CUDA graphs on a GPU, nothing elsewhere
    accelerator: str = "auto"
    devices: int | str | Sequence[int] = 1
    num_nodes: int = 1
    strategy: str = "auto"  # of several devices: "ddp" or "sharded"
    val_every: int = 1000  # steps
    val_samples: int = 512
    checkpoint_every: int = 1000
    log_every: int = 50
    cache: str = "device"  # the whole split in the device's memory; "none": loaded by worker processes
    workers: int = 4

    @property
    def device(self) -> torch.device:
        """The device for work outside Lightning. `accelerator="cpu"` keeps everything off a GPU. Raises Unfit."""
        asked = self.accelerator in ("gpu", "cuda")
        if asked and not torch.cuda.is_available():
            raise Unfit(f"trainer.accelerator={self.accelerator}: there is no GPU here; allowed are auto and cpu")
        gpu = torch.cuda.is_available() and (asked or self.accelerator == "auto")
        return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")

    @property
    def processes(self) -> int:
        """Devices of a node times nodes. `devices="auto"` is every GPU that can be seen, or the CPU."""
        devices = self.devices
        if devices == "auto":
            devices = torch.cuda.device_count() if self.device.type == "cuda" else 1
        return (devices if isinstance(devices, int) else len(devices)) * self.num_nodes

    @property
    def at_once(self) -> int:
        """Samples of a variant that a device has in a forward and backward pass."""
        return self.batch_size // (self.accumulate * self.processes)

    @property
    def is_first_process(self) -> bool:
        """Whether this process writes. One that trains by itself does, whatever its number among SLURM's tasks is."""
        return self.processes == 1 or getattr(rank_zero_only, "rank", 0) == 0

    @property
    def is_half(self) -> bool:
        """Whether forward and backward passes are in bf16: `auto` says so on a GPU that computes in it."""
        return self._has_bf16 if self.precision == "auto" else self.precision == "bf16-mixed"

    @property
    def _has_bf16(self) -> bool:
        return self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    @property
    def told(self) -> str:
        """What was chosen for the GPU on which runs are trained, in a line; empty on a CPU, where nothing is."""
        if self.device.type != "cuda":
            return ""
        card = torch.cuda.get_device_properties(self.device)
        chosen = "float64" if self.is_double else "bf16, weights in float32" if self.is_half else "float32"
        why = ""
        if not self._has_bf16:
            why = ", as it has no bf16" if self.precision == "auto" else ", which it only emulates" * self.is_half
        parts = f"; {self.accumulate} parts of a batch, {self.at_once} samples at once" if self.accumulate > 1 else ""
        return f"{card.name}, {gib(card.total_memory)}; computes in {chosen}{why}{parts}"

    @property
    def is_double(self) -> bool:
        """Whether weights and everything else are in float64."""
        return self.precision == "64-true"

    @property
    def compile_mode(self) -> str | None:
        """CUDA graphs where there is a GPU, nothing elsewhere, unless the user said otherwise."""
        gpu = self.device.type == "cuda"
        wanted = gpu if self.compile == "auto" else self.compile
        return ("reduce-overhead" if gpu else "default") if wanted else None
