"""Parameters and FLOPs of backbones: `python -m flowzoo.backbones.size` prints the tables of docs/backbones.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from flowzoo.encoders.text import Text, TextSpec
from flowzoo.paths import conf
from flowzoo.sizes import patch_of

SMALL_TEXT = TextSpec(lengths=(32, 24), dims=(64, 64), pooled=(64, 64))  # flowzoo's two embedded encoders
PAPER_TEXT = TextSpec(lengths=(154,), dims=(4096,), pooled=(2048,))  # appendix B.2
PAPER_DEPTHS = (15, 24, 38)  # the scaling study's smallest and largest, and the 2B model between


@dataclass(frozen=True)
class Size:
    """width [channels], parameters, FLOPs of one forward pass of one sample (2 a multiply-add, products only)."""

    width: int
    parameters: int
    flops: int


def preset(name: str, **overrides: Any) -> DictConfig:
    """The network of conf/backbone/<name>.yaml with some values replaced, where it is silent with patches for pixels.

    Raises ValueError for an unknown name.
    """
    path = conf() / "backbone" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"backbone {name!r} is none of {sorted(p.stem for p in path.parent.glob('*.yaml'))}")
    config = OmegaConf.merge(OmegaConf.load(path), overrides)
    assert isinstance(config, DictConfig)
    config.pop("name")  # for results; no argument of the network
    config.patch_size = patch_of(config.patch_size, 1)
    return config


def size_of(config: Mapping[str, Any] | DictConfig, *, channels: int, size: tuple[int, int], text: TextSpec) -> Size:
    """Size of the backbone that a config describes for z of (H, W), built on the meta device: any size, no memory."""
    with torch.device("meta"):
        net = instantiate(config, channels=channels, size=size, text=text)
        z, label = torch.empty(1, channels, *size), torch.empty(1)
        tokens = tuple(torch.empty(1, n, d) for n, d in zip(text.lengths, text.dims, strict=True))
        pooled = tuple(torch.empty(1, p) for p in text.pooled)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(z, label, Text(tokens, pooled))
    parameters = sum(p.numel() for p in net.parameters())
    return Size(net.condition.label.out.out_features, parameters, counter.get_total_flops())


def table() -> str:
    """The two Markdown tables: flowzoo's small presets, and MM-DiT at the paper's depths."""
    head = "| backbone | preset | width | depth | parameters | GFLOPs a sample |\n|---|---|---|---|---|---|\n"

    def row(backbone: str, name: str, config: DictConfig, **data: Any) -> str:
        s = size_of(config, **data)
        return f"| {backbone} | {name} | {s.width} | {config.depth} | {s.parameters:,} | {s.flops / 1e9:,.2f} |\n"

    small = "".join(
        row(path.stem, "small", preset(path.stem), channels=3, size=(32, 32), text=SMALL_TEXT)
        for path in sorted((conf() / "backbone").glob("*.yaml"))
    )
    paper = "".join(
        row(
            "mmdit",
            f"depth={depth} width=null patch_size=2",
            preset("mmdit", depth=depth, width=None, patch_size=2),
            channels=16,
            size=(128, 128),
            text=PAPER_TEXT,
        )
        for depth in PAPER_DEPTHS
    )
    return (
        "At 32 x 32 x 3 (text tokens 32 x 64 and 24 x 64, pooled 64 and 64):\n\n"
        + head
        + small
        + "\nAt the paper's sizes (latents of 128 x 128 x 16, text tokens 154 x 4096, pooled 2048):\n\n"
        + head
        + paper
    )


if __name__ == "__main__":
    print(table(), end="")
