"""Weights of diffusers' SD3Transformer2DModel into an MMDiT: every name accounted for, or nothing is loaded.

The backbone to load into has one text encoder (the 154 x 4096 tokens and 2048 pooled features of the paper's appendix
B.2), two streams and the `Cropped` grid:

    MMDiT(channels=16, size=(128, 128), text=TextSpec((154,), (4096,), (2048,)), patch_size=2, depth=24, width=None,
          heads=None, qk_norm=False, grid=Cropped(max_size=192, base=64))

SD3.5 has qk_norm=True; its medium model (dual_attention_layers 0 to 12) dual_attention=13, max_size=384.
"""

from collections.abc import Callable, Iterator, Mapping
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from flowzoo.backbones.mmdit import MMDiT
from flowzoo.backbones.positions import encode


class Entry(NamedTuple):
    """Where one of our tensors comes from; ours None: a tensor of theirs that no output depends on."""

    ours: str | None
    theirs: tuple[str, ...]
    shape: tuple[int, ...]  # of each of theirs
    convert: Callable[[list[Tensor]], Tensor] = torch.cat


TABLE = "pos_embed.pos_embed"  # theirs is stored, ours computed: compared, not loaded


def load_sd3(state_dict: Mapping[str, Tensor], backbone: MMDiT) -> None:
    """Fill the backbone with a state dict of diffusers' SD3Transformer2DModel, in diffusers' names.

    Raises ValueError that names the tensors missing, extra or of another shape, or if the positional tables differ; the
    backbone is then left as it was.
    """
    if len(backbone.text.linears) != 1:
        raise ValueError(f"SD3 has one text embedding; this backbone has {len(backbone.text.linears)} encoders")
    entries = list(_entries(backbone))
    shapes = {name: entry.shape for entry in entries for name in entry.theirs}
    given = {name: tensor for name, tensor in state_dict.items() if name != TABLE}
    problems = [f"missing: {name}" for name in shapes if name not in given]
    problems += [f"extra: {name}" for name in given if name not in shapes]
    problems += [
        f"shape of {name}: {tuple(given[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    problems += _table_problems(state_dict.get(TABLE), backbone)
    if problems:
        raise ValueError("this state dict does not fit the backbone:\n  " + "\n  ".join(problems))
    converted = {e.ours: e.convert([given[name] for name in e.theirs]) for e in entries if e.ours is not None}
    backbone.load_state_dict(converted, strict=True)


def _table_problems(table: Tensor | None, backbone: MMDiT) -> list[str]:
    if table is None:
        return [f"missing: {TABLE}"]
    positions = backbone.image.positions
    side = isqrt(table.shape[1]) if table.ndim == 3 else 0
    if tuple(table.shape) != (1, side * side, positions.width):
        return [f"shape of {TABLE}: {tuple(table.shape)}, expected (1, n * n, {positions.width})"]
    theirs = table[0].detach().cpu().double().unflatten(0, (side, side))
    for h, w in ((side, side), positions.patches):  # the whole, and its middle, which they use for the usual size
        top, left = (side - h) // 2, (side - w) // 2
        ours = encode(positions.grid, h, w, positions.width).unflatten(0, (h, w))
        middle = theirs[top : top + h, left : left + w]
        # half-precision files round the table by 5e-4; another base or size moves it by 1
        if min(top, left) < 0 or (middle - ours).abs().max() > 1e-3:
            return [f"{TABLE}: not the table of this backbone's grid, {positions.grid}"]
    return []


def _entries(backbone: MMDiT) -> Iterator[Entry]:
    ours = {name: tuple(parameter.shape) for name, parameter in backbone.named_parameters()}

    def rows(prefix: str, *sources: str) -> Iterator[Entry]:
        """One of our layers from one of theirs, or from several stacked by rows."""
        for kind in ("weight", "bias"):
            n, *rest = ours[f"{prefix}.{kind}"]
            yield Entry(f"{prefix}.{kind}", tuple(f"{s}.{kind}" for s in sources), (n // len(sources), *rest))

    def swapped(prefix: str, source: str) -> Iterator[Entry]:
        """Theirs gives scale, shift where ours gives shift, scale."""
        for entry in rows(prefix, source):
            yield entry._replace(convert=lambda t: torch.cat(t[0].chunk(2)[::-1]))

    def norms(prefix: str, *sources: str) -> Iterator[Entry]:
        for i, source in enumerate(sources):
            if f"{prefix}.norms.{i}.weight" in ours:  # absent without qk-norm: theirs are then extra
                yield Entry(f"{prefix}.norms.{i}.weight", (f"{source}.weight",), ours[f"{prefix}.norms.{i}.weight"])

    def attention(prefix: str, attn: str, qkv: list[str], qk: list[str], out: str) -> Iterator[Entry]:
        yield from rows(f"{prefix}.qkv.linear", *(f"{attn}.{name}" for name in qkv))
        yield from norms(f"{prefix}.qkv", *(f"{attn}.{name}" for name in qk))
        yield from rows(f"{prefix}.out", f"{attn}.{out}")

    def stream(prefix: str, block: str, norm: str, qkv: list[str], qk: list[str], out: str, ff: str) -> Iterator[Entry]:
        yield from rows(f"{prefix}.modulation.linear", f"{block}.{norm}.linear")
        yield from attention(prefix, f"{block}.attn", qkv, qk, out)
        yield from rows(f"{prefix}.mlp.0", f"{block}.{ff}.net.0.proj")
        yield from rows(f"{prefix}.mlp.2", f"{block}.{ff}.net.2")

    def image_stream(prefix: str, block: str) -> Iterator[Entry]:
        names = ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"], "to_out.0"
        yield from stream(prefix, block, "norm1", *names, "ff")
        if f"{prefix}.second.out.weight" in ours:
            yield from attention(f"{prefix}.second", f"{block}.attn2", *names)

    p = backbone.image.patch_size
    width, features = ours["image.linear.weight"]
    # [D, C, p, p] -> [D, p p C], the order of patchify
    yield Entry(
        "image.linear.weight",
        ("pos_embed.proj.weight",),
        (width, features // p**2, p, p),
        lambda t: t[0].permute(0, 2, 3, 1).flatten(1),
    )
    yield Entry("image.linear.bias", ("pos_embed.proj.bias",), (width,))
    for mlp, source in (("label", "timestep_embedder"), ("pooled", "text_embedder")):
        if f"condition.{mlp}.hidden.weight" in ours:
            yield from rows(f"condition.{mlp}.hidden", f"time_text_embed.{source}.linear_1")
            yield from rows(f"condition.{mlp}.out", f"time_text_embed.{source}.linear_2")
    yield from rows("text.linears.0", "context_embedder")
    for i in range(len(backbone.blocks)):
        block = f"transformer_blocks.{i}"
        yield from image_stream(f"blocks.{i}.streams.0", block)
        qkv, qk = ["add_q_proj", "add_k_proj", "add_v_proj"], ["norm_added_q", "norm_added_k"]
        yield from stream(f"blocks.{i}.streams.1", block, "norm1_context", qkv, qk, "to_add_out", "ff_context")
    block = f"transformer_blocks.{len(backbone.blocks)}"
    yield from image_stream("last.image", block)
    yield from swapped("last.texts.0.modulation.linear", f"{block}.norm1_context.linear")
    yield from rows("last.texts.0.kv.linear", f"{block}.attn.add_k_proj", f"{block}.attn.add_v_proj")
    yield from norms("last.texts.0.kv", f"{block}.attn.norm_added_k")
    # theirs computes queries of the text in the last block and drops what they find
    yield Entry(None, (f"{block}.attn.add_q_proj.weight",), (width, width))
    yield Entry(None, (f"{block}.attn.add_q_proj.bias",), (width,))
    if "last.texts.0.kv.norms.0.weight" in ours:
        yield Entry(None, (f"{block}.attn.norm_added_q.weight",), ours["last.texts.0.kv.norms.0.weight"])
    yield from swapped("final.modulation.linear", "norm_out.linear")
    yield from rows("final.linear", "proj_out")
