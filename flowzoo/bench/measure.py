"""One measurement as a line: times, rates, operations, memory; and the card's own product to compare with."""

import gc
import resource
import statistics
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowzoo.autoencoders.statistics import ChannelStatistics
from flowzoo.bench.report import Report, machine, spread
from flowzoo.bench.stopwatch import Stopwatch, synchronize
from flowzoo.bench.subject import Subject
from flowzoo.build import autoencoder_of, backbone_of, latents_of
from flowzoo.encoders.text import TextEncoders
from flowzoo.sizes import pair


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

    def time(
        self, run: Callable[[Stopwatch], object], flops: float | None, variants: int = 1, **what: Any
    ) -> float | None:
        """Variant-steps a second at the median lap, None where it failed. `flops`, of a variant's step, where known."""
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

    def profile(self, subject: Callable[[], Subject]) -> None:
        """A line with the kernels that take longest, of as many steps as a lap has."""
        with self.report.measuring(measure="profile"):
            told = subject().profiled(self.args.steps_per_repeat, self.args.profile)
            self.report.line(measure="profile", loop="bare", **told)

    def rates(self, rate: float, flops: float | None) -> dict[str, Any]:
        """From variant-steps a second."""
        images = rate * self.args.batch
        told = {"variant_steps_per_s": round(rate, 3), "images_per_s": round(images, 1)}
        return {**told, **self.tflops(rate, flops)}

    def tflops(self, rate: float, flops: float | None) -> dict[str, float]:
        """Of `rate` times `flops` a second; beside the card's own product, where that was measured."""
        if flops is None:
            return {}
        speed = rate * flops / 1e12
        told = {"tflops": round(speed, 4)}
        if self.card_tflops:
            told["share_of_product"] = round(speed / self.card_tflops, 5)
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


def forward_flops(cfg: DictConfig) -> float:
    """Floating point operations of a network on one image, two for each multiplication and addition of products.

    Counted in a forward pass that computes nothing, attention as its two products. Elementwise work and normalisation
    are not counted.
    """
    autoencoder = autoencoder_of(cfg, image_channels=3)
    some = [1.0] * autoencoder.channels
    latents = latents_of(cfg, autoencoder, ChannelStatistics.given(some, some))
    text: TextEncoders = instantiate(cfg.text)
    size, counter = pair(cfg.data.source.image_size), FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        z, label = torch.zeros(1, latents.channels, *latents.latent_size(size)), torch.zeros(1)
        backbone_of(cfg, latents, text, size)(z, label, text.null(1).to("meta"))
    return float(counter.get_total_flops())


def training_flops(cfg: DictConfig) -> float:
    """Of a training step of one variant; the backward pass has two products for each of the forward pass's one."""
    return 3 * cfg.trainer.batch_size * forward_flops(cfg)
