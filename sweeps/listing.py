"""python -m sweeps list [SWEEP]"""

from argparse import ArgumentParser, Namespace

from sweeps.definition import load, sweep_names


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help="a name or a YAML file")


def main(args: Namespace) -> int:
    print("\n".join(sweep_names() if args.sweep is None else load(args.sweep).variants))
    return 0
