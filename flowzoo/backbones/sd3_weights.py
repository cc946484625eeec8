"""Weights of diffusers' SD3Transformer2DModel into an MMDiT, and back: every name accounted for, or nothing is loaded.

The backbone to load into has one text encoder (the 154 x 4096 tokens and 2048 pooled features of the paper's appendix
B.2), two streams and the `Cropped` grid:

    MMDiT(channels=16, size=(128, 128), text=TextSpec((154,), (4096,), (2048,)), patch_size=2, depth=24, width=None,
          heads=None, qk_norm=False, grid=Cropped(max_size=192, base=64))

SD3.5 has qk_norm=True; its medium model (dual_attention_layers 0 to 12) dual_attention=13, max_size=384.

The way back takes any grid and any number of text encoders (`to_sd3`, `sd3_text`).
"""

from collections.abc import Callable, Iterator, Mapping
from math import isqrt, prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from flowzoo.backbones.mmdit import MMDiT
from flowzoo.backbones.parts import JointBlock
from flowzoo.backbones.positions import Cropped, PositionalEncoding, encode
from flowzoo.encoders.text import Text


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


def to_sd3(backbone: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and state dict of the SD3Transformer2DModel that computes what the backbone does, at the size of its z.

    On the text that `sd3_text` makes. On the `Cropped` grid other sizes are the same too; diffusers knows no other.
    Raises ValueError where text has weights of its own for each encoder, which SD3's transformer cannot hold.
    """
    if type(backbone) is not MMDiT or backbone.split_text:
        kind = "split_text=true" if isinstance(backbone, MMDiT) else type(backbone).__name__
        raise ValueError(f"SD3Transformer2DModel holds an MMDiT of two streams, image and text, and no {kind}")
    own, texts = backbone.state_dict(), backbone.text.linears
    state: dict[str, Tensor] = {}
    for entry in _entries(backbone):
        state |= _back(entry, own[entry.ours] if entry.ours else None)
    width = backbone.image.linear.weight.shape[0]
    like = state["context_embedder.weight"]
    if len(texts) > 1:  # a layer each: of features side by side, with the biases as weights of features that are 1
        biases = torch.stack([layer.bias for layer in texts], 1)
        state["context_embedder.weight"] = torch.cat([*(layer.weight for layer in texts), biases], 1).detach()
        state["context_embedder.bias"] = torch.zeros_like(state["context_embedder.bias"])
    if backbone.condition.pooled is None:  # theirs always has the layer; here it adds nothing, whatever it is given
        for name, shape in (("linear_1", (width, 1)), ("linear_2", (width, width))):
            state[f"time_text_embed.text_embedder.{name}.weight"] = like.new_zeros(shape)
            state[f"time_text_embed.text_embedder.{name}.bias"] = like.new_zeros(width)
    side, table = _table(backbone.image.positions)
    state[TABLE] = table.to(like)
    qkv, p = backbone.last.image.qkv, backbone.image.patch_size
    channels = backbone.image.linear.weight.shape[1] // p**2
    images = [*(cast(JointBlock, block).streams[0] for block in backbone.blocks), backbone.last.image]
    config = {
        "sample_size": p * max(backbone.image.positions.patches),
        "patch_size": p,
        "in_channels": channels,
        "out_channels": channels,
        "num_layers": len(images),
        "attention_head_dim": width // qkv.heads,
        "num_attention_heads": qkv.heads,
        "joint_attention_dim": state["context_embedder.weight"].shape[1],
        "caption_projection_dim": width,
        "pooled_projection_dim": state["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "pos_embed_max_size": side,
        "dual_attention_layers": tuple(i for i, stream in enumerate(images) if stream.second is not None),
        "qk_norm": "rms_norm" if len(qkv.norms) else None,
    }
    return config, state


def sd3_text(text: Text) -> tuple[Tensor, Tensor]:
    """What the model of `to_sd3` is given of a text: (encoder_hidden_states, pooled_projections).

    Of one encoder its tokens [B, L, D]. Of n encoders all tokens in a row, [B, sum L_i, sum D_i + n]: those of encoder
    i have its features in its own D_i columns, a 1 in column sum D_i + i, and 0 elsewhere. Pooled are all encoders'
    side by side, [B, sum P_i], or [B, 1] zeros where there are none.
    """
    text = text.whole()
    n, dims = len(text.tokens), [x.shape[-1] for x in text.tokens]
    tokens = list(text.tokens)
    if n > 1:
        for i, x in enumerate(tokens):
            wide = x.new_zeros(*x.shape[:-1], sum(dims) + n)
            wide[..., sum(dims[:i]) : sum(dims[: i + 1])] = x
            wide[..., sum(dims) + i] = 1
            tokens[i] = wide
    pooled = torch.cat(text.pooled, -1)
    return torch.cat(tokens, 1), pooled if pooled.shape[-1] else pooled.new_zeros(len(pooled), 1)


def _back(entry: Entry, ours: Tensor | None) -> dict[str, Tensor]:
    """Theirs of one of ours. A conversion only moves numbers: where to, it tells when it is given their places."""
    n = prod(entry.shape)
    if ours is None:
        return {name: torch.zeros(entry.shape) for name in entry.theirs}
    places = torch.arange(len(entry.theirs) * n).reshape(-1, *entry.shape)
    flat = torch.empty(len(places) * n, dtype=ours.dtype)
    flat[entry.convert(list(places)).flatten()] = ours.detach().cpu().flatten()
    return dict(zip(entry.theirs, flat.reshape_as(places).unbind(), strict=True))


def _table(positions: PositionalEncoding) -> tuple[int, Tensor]:
    """Side n of the square of patches that theirs stores, and it, [1, n * n, D]; theirs looks at its middle."""
    h, w = positions.patches
    if isinstance(positions.grid, Cropped):
        n = positions.grid.max_size
        return n, encode(positions.grid, n, n, positions.width)[None]
    n = max(h, w)
    table = torch.zeros(n, n, positions.width, dtype=torch.float64)
    top, left = (n - h) // 2, (n - w) // 2
    table[top : top + h, left : left + w] = encode(positions.grid, h, w, positions.width).unflatten(0, (h, w))
    return n, table.flatten(0, 1)[None]


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
