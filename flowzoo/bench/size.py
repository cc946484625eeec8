"""The size of a network and of its batch, from options to a config as `flowzoo.train` composes it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from flowzoo.bench.report import Report
from flowzoo.formulation.names import TABLE
from flowzoo.formulation.spelling import file_name
from flowzoo.runs.arguments import above_zero, positive
from flowzoo.runs.check import check_train
from flowzoo.runs.config import compose_jobs, config_loader

if TYPE_CHECKING:
    import torch

CLIP_LENGTH = 77  # tokens of a text encoder at most
FOREVER = 10**9
MODES = {"eager": None, "compiled": "default", "cudagraphs": "reduce-overhead"}  # names of torch.compile's modes


def configure_size(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("size")
    group.add_argument("--width", type=positive, default=256, help="a multiple of 64, the width of a head")
    group.add_argument("--depth", type=positive, default=6, help="blocks of the MM-DiT")
    group.add_argument("--image-tokens", type=positive, default=64, help="a square of 4 to 32 a side")
    group.add_argument("--text-tokens", type=positive, default=16, help="of encoders of at most 77 each, equally long")
    group.add_argument(
        "--default-text",
        action="store_true",
        help="32 + 24 tokens instead, their padding merged as training and scoring do; operations are not counted",
    )
    group.add_argument("--batch", type=positive, default=128, help="images a step, of each variant")
    group.add_argument("--images", type=positive, default=4096, help="of the data set")
    group.add_argument(
        "--autoencoder",
        choices=("pixels", "pca", "kl"),
        default="pixels",
        help="latents have 8 channels and are as many as there are tokens; kl has random weights",
    )
    group.add_argument(
        "--once", action="store_true", help="no image is seen twice, so latents are computed batch by batch"
    )
    group.add_argument("--precision", default="auto", help="auto: bf16-mixed on a GPU; or one of Lightning's")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")


def tokens_of(args: Namespace) -> AbstractContextManager[object]:
    """So many tokens as are given are computed, whatever captions say: padding is merged in the default text alone."""
    from flowzoo.encoders.text import unmerged

    return nullcontext() if args.default_text else unmerged()


def check_padded(args: Namespace, peers: list[str], report: Report) -> list[str]:
    """Without the peer `padded` where nothing is merged. Raises ValueError where it is asked for by name."""
    if args.default_text or "padded" not in peers:
        return peers
    if args.peer != "all":
        raise ValueError("--peer padded: allowed with --default-text, where padding is merged")
    report.skipped("padded", "nothing is merged without --default-text")
    return [peer for peer in peers if peer != "padded"]


def configure_repeats(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("repeats")
    group.add_argument("--repeats", type=positive, default=5, help="laps that count; one more is for warming up")
    group.add_argument("--steps-per-repeat", type=positive, default=50, help="of a lap")
    group.add_argument("--seconds", type=above_zero, default=60.0, help="no further lap of a measurement after so many")
    group.add_argument(
        "--product", type=positive, help="edge of the matrices of the card's own product (8192 on a GPU)"
    )


def configure_ours(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--compile",
        choices=("auto", *MODES),
        default="auto",
        help="how ours is compiled; auto: as training does (CUDA graphs on a GPU)",
    )
    parser.add_argument("--profile", type=positive, metavar="N", help="tell the N kernels that take longest of ours")


def configure_peers(parser: ArgumentParser, peers: Sequence[str]) -> None:
    parser.add_argument("--peer", default="all", help=f"all, none, or some of {','.join(peers)}")


def peers_of(args: Namespace, known: Sequence[str]) -> list[str]:
    """The peers that are asked for. Raises ValueError for one that is not known."""
    if args.peer in ("all", "none"):
        return list(known) if args.peer == "all" else []
    asked = args.peer.split(",")
    for name in asked:
        if name not in known:
            raise ValueError(f"--peer {name}: allowed are all, none, {', '.join(known)}")
    return asked


def mode_of(args: Namespace, automatic: str | None) -> str | None:
    """How ours is compiled."""
    return automatic if args.compile == "auto" else MODES[args.compile]


def check_graphs(args: Namespace, peers: list[str], device: "torch.device", report: Report) -> list[str]:
    """The peers that this device can run. Raises ValueError where CUDA graphs are asked for by name and have no GPU."""
    if device.type == "cuda":
        return peers
    if args.compile == "cudagraphs":
        raise ValueError("--compile cudagraphs: there is no GPU here; allowed are auto, eager and compiled")
    graphs = [peer for peer in peers if "cudagraphs" in peer]
    for peer in graphs:
        if args.peer != "all":
            raise ValueError(f"--peer {peer}: there is no GPU here; allowed are the peers without CUDA graphs")
        report.skipped(peer, "there is no GPU here")
    return [peer for peer in peers if peer not in graphs]


def words_of(args: Namespace, runs: Path) -> list[str]:
    """What a user would type for this size. Raises ValueError for a number of tokens that cannot be."""
    if args.width % 64:
        raise ValueError(f"--width {args.width}: allowed is a multiple of 64, the width of a head")
    side = isqrt(args.image_tokens)
    if side * side != args.image_tokens or not 4 <= side <= 32:
        raise ValueError(f"--image-tokens {args.image_tokens}: allowed is a square from 16 to 1024")
    patch = 4 if side <= 16 else 2
    encoders = -(-args.text_tokens // CLIP_LENGTH)
    if args.text_tokens % encoders:
        raise ValueError(
            f"--text-tokens {args.text_tokens}: allowed is a multiple of {encoders}, as many encoders of at most "
            f"{CLIP_LENGTH} tokens as it takes, all equally long"
        )
    length = args.text_tokens // encoders
    more = [
        f"+text.encoders.words{i}={{_target_: flowzoo.encoders.words.WordEncoder, length: {length}, dim: 64}}"
        for i in range(2, encoders + 1)
    ]
    steps = args.images // args.batch if args.once else 100_000
    if not steps:
        raise ValueError(f"--once with --images {args.images}: allowed is at least one batch, {args.batch}")
    return [
        *_autoencoder(args.autoencoder, patch, runs.parent),
        "backbone=mmdit",
        f"backbone.width={args.width}",
        f"backbone.depth={args.depth}",
        f"data.source.image_size={side * patch}",
        f"data.source.size={args.images}",
        *(["text=clip_words"] if args.default_text else ["text=words", f"text.encoders.words.length={length}", *more]),
        f"trainer.batch_size={args.batch}",
        f"trainer.precision={args.precision}",
        f"trainer.accelerator={'gpu' if args.device == 'cuda' else args.device}",
        f"trainer.steps={steps}",
        f"trainer.val_every={FOREVER}",
        f"trainer.checkpoint_every={FOREVER}",
        f"runs={runs}",
    ]


def _autoencoder(name: str, patch: int, folder: Path) -> list[str]:
    """The words for an autoencoder with which a token is so many pixels wide; weights go to `folder`."""
    if name == "pixels":
        return ["autoencoder=pixels", f"backbone.patch_size={patch}"]
    if name == "pca":
        latents = [f"autoencoder.factor={patch}", "autoencoder.channels=8"]
    else:
        from flowzoo.autoencoders.kl import save_kl
        from flowzoo.autoencoders.kl_network import KLNetwork

        folder.mkdir(parents=True, exist_ok=True)
        widths = (32, 64, 128)[-patch.bit_length() :]
        save_kl(KLNetwork(3, patch, 8, widths, blocks=1), folder / "kl.safetensors", {})
        latents = [f"autoencoder.weights={folder / 'kl.safetensors'}"]
    return [f"autoencoder={name}", *latents, "backbone.patch_size=1"]


def configs(words: Sequence[str], variants: int) -> list[DictConfig]:
    """So many of the paper's 61 and, from the 62nd on, the same again at other learning rates. Raises `UserErrors`."""
    names = [file_name(name) for name in TABLE]
    made: list[DictConfig] = []
    with config_loader() as loader:
        while len(made) < variants:
            rate = 1e-4 * (1 + 0.01 * (len(made) // len(names)))
            own = [f"variant={','.join(names[: variants - len(made)])}", f"optimizer.lr={rate}"]
            made += compose_jobs(loader, "train", [*words, *own], multirun=True)
    check_train(made[0])
    return made
