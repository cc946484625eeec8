"""Latents and text embeddings of a data set, once: `python -m flowzoo.encode data=shards autoencoder=pca out=FOLDER`.

What it writes, and how data=latents trains from it: docs/data.md.
"""

import os
from typing import Any, NoReturn

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress

from flowzoo.data.encoded import DTYPES, INDEX
from flowzoo.encoding import encode_all
from flowzoo.paths import user_path
from flowzoo.runs.check import check_single
from flowzoo.runs.files import saying
from flowzoo.runs.limits import ACCELERATOR, either, integer, one_of
from flowzoo.runs.output import follow
from flowzoo.runs.signals import shielded, stoppable
from flowzoo.runs.single import launch_single
from flowzoo.runs.store import Run

OWN_LIMITS = {
    "dtype": one_of(*DTYPES),
    "images_per_shard": integer(1),
    "batch_size": integer(1),
    "processes": either(one_of(None), integer(1)),
    "accelerator": ACCELERATOR,
}


@shielded
def run(cfg: DictConfig) -> dict[str, Any]:
    """Encodes what is not encoded yet, prints what there is, and returns the index. Raises ValueError or RunError."""
    check_single(cfg, "encode", OWN_LIMITS)
    out = user_path(str(cfg.out))
    nearest = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        raise ValueError(f"out={cfg.out}: {nearest} is a file; allowed is a folder")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"out={cfg.out}: no permission to write there")
    if not (out / "plan.json").is_file() and out.is_dir() and any(p.name[0] != "." for p in out.iterdir()):
        raise ValueError(f"out={cfg.out}: other files are in there; allowed is a folder of its own")
    before = (out / INDEX).is_file()
    console = Console()
    with saying(f"cannot write {out}"):
        out.mkdir(parents=True, exist_ok=True)
    with Run(out).lock(), Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        index = stoppable(encode_all)(cfg, out, progress)
    size = sum(told["bytes"] for told in index["shards"].values()) / 2**30
    latent = " x ".join(map(str, index["latent"]))
    lines = [
        f"{index['train']:,} latents of {latent} in {index['dtype']}, {index['captions']:,} captions by "
        f"{', '.join(index['text'])}, {index['val']:,} held-out images: {len(index['shards'])} shards, {size:.2f} GiB"
        + (", all of which are as they were written" if before else ""),
        f"train on them: data=latents data.name={index['source']['name']} data.source.path={cfg.out}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return index


def main() -> NoReturn:
    launch_single("encode", run)


if __name__ == "__main__":
    follow()
    main()
