"""python -m sweeps list [SWEEP], python -m sweeps run SWEEP [key=value ...]"""

import argparse
import sys
from collections.abc import Sequence

from sweeps.definition import load, sweep_names


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweeps", description="Named sweeps over training formulations.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the names of the sweeps, or of the variants of one, one a line")
    listing.add_argument("sweep", nargs="?", help="a name or a YAML file")
    running = commands.add_parser("run", help="every variant of a sweep, one after another; the same command goes on")
    running.add_argument("sweep", help="a name or a YAML file")
    running.add_argument("overrides", nargs="*", help="as for flowzoo.train; they win over the sweep's own")
    args = parser.parse_args(argv)

    if args.command == "list" and args.sweep is None:
        print("\n".join(sweep_names()))
        return 0
    try:
        sweep = load(args.sweep)
    except ValueError as error:
        print(f"sweeps: {error}", file=sys.stderr)
        return 2
    if args.command == "list":
        print("\n".join(sweep.variants))
        return 0

    from flowzoo.runs.config import UserErrors, one_line
    from flowzoo.runs.grouping import is_stacked
    from sweeps.engine import jobs_of, run_all, run_stacked

    # the engine of a sweep is the trainer of its runs
    words = [f"trainer={w.removeprefix('engine=')}" if w.startswith("engine=") else w for w in args.overrides]
    try:
        jobs = jobs_of(sweep, words)
    except UserErrors as error:
        print(f"sweeps: {one_line(error)}", file=sys.stderr)
        return 2
    if is_stacked(jobs[0]):
        from flowzoo.train import run_together

        return run_stacked(jobs, run_together)
    from flowzoo.train import run

    return run_all(jobs, run)


if __name__ == "__main__":
    sys.exit(main())
