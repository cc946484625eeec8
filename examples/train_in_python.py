"""A run without a config or a command: its parts are put together, trained, scored, loaded again and sampled.

    python examples/train_in_python.py [STEPS]

writes runs/python/rf_lognorm. The same command goes on where an earlier one was stopped.
"""

import sys

import torch

from flowzoo.autoencoders.kept import find
from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pca import BlockPCA
from flowzoo.backbones.dit import DiT
from flowzoo.data.shapes import Shapes
from flowzoo.encoders.text import TextEncoders
from flowzoo.encoders.words import WordEncoder
from flowzoo.formulation.named import formulation
from flowzoo.job import Evaluation, Job, Model, Setting
from flowzoo.picture import save_grid
from flowzoo.prompted import sample_prompts
from flowzoo.runs.store import Interrupted, Run
from flowzoo.training.checkpoint import load_into
from flowzoo.training.lifecycle import train_and_score
from flowzoo.training.loop import Loop


def main(steps: int) -> Run:
    train, val = Shapes("train", image_size=16, size=2000), Shapes("val", image_size=16, size=500)
    text = TextEncoders({"words": WordEncoder(length=8)})
    pca = BlockPCA(image_channels=3, factor=2, channels=6)
    statistics = find(pca, train, val)  # fits it, and measures its latents
    latents = Latents(pca, statistics.mean, statistics.std)
    torch.manual_seed(0)
    network = DiT(channels=6, size=(8, 8), text=text.spec, patch_size=2, depth=2, width=64, heads=2)
    model = Model(formulation("rf/lognorm(0,1)"), network, latents, text, size=train.size)
    loop = Loop(steps=steps, batch_size=32, val_every=100, checkpoint_every=100)
    judged = Evaluation(samples=200, reference=200, settings=[Setting(steps=10, guidance=2.5)])
    job = Job(Run("runs/python/rf_lognorm"), model, train, val, loop, evaluation=judged, statistics=statistics)

    train_and_score([job])
    for row in job.run.rows():
        print(row["variant"], row["weights"], f"FID {row['fid']:.1f}, CLIP {row['clip']:.3f}")

    load_into(network, job.run.path / "checkpoints" / "best.ckpt", weights="ema")
    save_grid(job.run.path / "circles.png", sample_prompts(model, ["a red circle"], n=8))
    return job.run


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
    except Interrupted as told:  # Ctrl-C: everything is saved
        sys.exit(f"{told}; the same command goes on from here")
