"""python -m sweeps COMMAND ...: each command is a module here, imported when it is asked for."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from flowzoo.runs.output import command

# command -> (module, what it does). The module has configure(parser) and main(args) -> exit code.
COMMANDS = {
    "list": ("sweeps.listing", "the names of the sweeps, or of the variants of one, one a line"),
    "plan": ("sweeps.plan", "freezes what a sweep will run, and says what it will take"),
    "run": ("sweeps.run", "every run of a sweep on this machine; the same command goes on"),
    "submit": ("sweeps.submit", "every run of a sweep as SLURM jobs; returns at once"),
    "status": ("sweeps.status", "where each run stands"),
    "retry": ("sweeps.retry", "failed, unfinished or all runs once more"),
    "cancel": ("sweeps.cancel", "stops what is queued or running"),
    "check": ("sweeps.check", "verifies the folders of a sweep and says what to repair"),
    "work": ("sweeps.work", "trains runs of a plan one after another; what a SLURM job calls"),
    "search": ("sweeps.search", "searches parameters of a formulation for the front of FID and CLIP"),
}


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m sweeps", description="Named sweeps over training formulations.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, words) in COMMANDS.items():
        command = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        if argv[:1] == [name]:
            import_module(module).configure(command)
    args, more = parser.parse_known_args(argv)
    # argparse takes words before the first option alone
    if any(word.startswith("-") for word in more) or (more and not hasattr(args, "words")):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more:
        args.words = [*args.words, *more]

    try:
        return import_module(COMMANDS[args.command][0]).main(args)
    except KeyboardInterrupt:
        print(f"sweeps {args.command}: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        from flowzoo.runs.refusal import UserErrors, one_line

        if not isinstance(error, UserErrors):
            raise
        print(f"sweeps: {one_line(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    command(main)
