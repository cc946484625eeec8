"""One measurement as a line: times, rates, operations, memory; and the card's own product to compare with."""

import gc
import resource
import statistics
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowzoo.bench.report import Report, machine, spread
from flowzoo.bench.stopwatch import Stopwatch, synchronize
from flowzoo.encoders.text import TextEncoders

TRAINING = 3  # times the operations of a forward pass: the backward pass has two products for each of its one


class Measure:
    """Runs measurements of a command on one device, and writes them."""

    def __init__(self, args: Namespace, report: Report, device: torch.device) -> None:
        self.args, self.report, self.device = args, report, device
        report.about = {**machine(), "torch": torch.__version__, **card(device)}
        # as training does (flowzoo/training/fit.py), for the peers too
        torch.set_float32_matmul_precision("high")
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.card_tflops: float | None = None

    def product(self) -> None:
        """The card's own bf16 product of two square matrices."""
        n = self.args.product or (8192 if self.device.type == "cuda" else 1024)
        with self.report.measuring(measure="product"):
            a, b = (torch.randn(n, n, device=self.device).bfloat16() for _ in range(2))
            watch = Stopwatch(20 if self.device.type == "cuda" else 2, 5, 20)
            watch.run(lambda: a @ b, self.device)
            self.card_tflops = 2 * n**3 / statistics.median(watch.laps) / 1e12
            self.report.line(measure="product", edge=n, **spread(watch.laps), tflops=round(self.card_tflops, 3))

    def watch(self, ready: Callable[[], object] = lambda: None) -> Stopwatch:
        return Stopwatch(self.args.steps_per_repeat, self.args.repeats, self.args.seconds, ready)

    def time(self, run: Callable[[Stopwatch], object], flops: float, variants: int = 1, **what: Any) -> float | None:
        """Variant-steps a second at the median lap, None where it failed. `flops`, those of one variant's step."""
        rate = None
        gc.collect()  # the optimiser of the one before
        with self.report.measuring(**what):
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            watch = self.watch()
            run(watch)
            rate = variants / statistics.median(watch.laps)
            numbers = {"variants": variants, **spread(watch.laps), "warm_up_s": round(watch.warming, 2)}
            self.report.line(**what, **numbers, **self.rates(rate, flops), peak_memory_gib=peak_gib(self.device))
        return rate

    def rates(self, rate: float, flops: float) -> dict[str, Any]:
        """From variant-steps a second."""
        tflops = rate * flops / 1e12
        told = {
            "variant_steps_per_s": round(rate, 3),
            "images_per_s": round(rate * self.args.batch, 1),
            "tflops": round(tflops, 4),
        }
        if self.card_tflops:
            told["share_of_product"] = round(tflops / self.card_tflops, 5)
        return told

    def clear(self) -> None:
        """Nothing of this model is left for the next one: neither memory nor compiled code, CUDA graphs among it."""
        torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            synchronize(self.device)
            torch.cuda.empty_cache()


def card(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"threads": torch.get_num_threads()}
    return {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}


def peak_gib(device: torch.device) -> float:
    """Since the last reset on a GPU, of the whole process elsewhere."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def training_flops(backbone: nn.Module, text: TextEncoders, channels: int, image_size: int, batch: int) -> float:
    """Floating point operations of a training step, two for each multiplication and addition of matrix products.

    Those of the eager forward pass of one sample on the CPU, attention as its two products, times batch, times 3.
    Elementwise work, normalisation and the optimiser are not counted.
    """
    dtype = next(backbone.parameters()).dtype
    z, label = torch.zeros(1, channels, image_size, image_size, dtype=dtype), torch.zeros(1)
    told = text.null(1).to("cpu", dtype)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        backbone(z, label, told)
    return float(TRAINING * batch * counter.get_total_flops())
