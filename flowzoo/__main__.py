"""`flowzoo COMMAND ...`: each command is a module that `python -m` runs as well, imported when it is asked for."""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from runpy import run_module

from flowzoo import __version__

# command -> (module, what it does)
COMMANDS = {
    "train": ("flowzoo.train", "train, sample and score a formulation"),
    "extend": ("flowzoo.extend", "go on with a finished run to more steps"),
    "evaluate": ("flowzoo.evaluate", "score a trained run in other settings"),
    "sample": ("flowzoo.sample", "draw images from a trained run"),
    "export": ("flowzoo.export", "write a trained network for diffusers, or as safetensors"),
    "sweeps": ("sweeps", "plan, run and check many runs, search parameters"),
    "rank": ("analysis.rank", "rank formulations by FID and CLIP score"),
    "compare": ("analysis.compare", "compare two sweeps where they share runs and settings"),
    "join": ("analysis.join", "write the rows of runs on several machines into one table"),
    "report": ("analysis.report", "write the report of runs as one HTML page"),
    "train-clip": ("flowzoo.train_clip", "train the small CLIP on images of your own"),
    "train-autoencoder": ("flowzoo.train_autoencoder", "train a KL autoencoder, whose latents backbones then see"),
    "encode": ("flowzoo.encode", "encode a data set once: latents and text embeddings to train from"),
    "reconstruct": ("flowzoo.reconstruct", "measure how well an autoencoder gives images back"),
    "advise": ("flowzoo.advise", "tell the timestep law that data predict, before training"),
    "calibrate": ("flowzoo.calibrate", "measure how metrics answer to known damage"),
    "bench": ("flowzoo.bench", "measure speed"),
}


def main() -> None:
    """Run the command that the first word of sys.argv names, with the words after it. Exits as that command does."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {words}" for name, (_, words) in COMMANDS.items())
    parser = ArgumentParser(
        "flowzoo",
        usage="flowzoo COMMAND ...",
        description="Train, sample, score and rank formulations of diffusion and flow models.",
        epilog=f"commands:\n{listed}\n\n`flowzoo COMMAND --help` tells more.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flowzoo {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those below")
    command = parser.parse_args(sys.argv[1:2]).command
    module, _ = COMMANDS[command]
    sys.argv = [f"flowzoo {command}", *sys.argv[2:]]
    # Parts from outside may lie in the working directory, as under `python -m`; what is installed comes before them.
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
