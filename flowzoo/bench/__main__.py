"""`python -m flowzoo.bench COMMAND`: JSON lines, one a measurement, each written at once."""

import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentParser
from contextlib import redirect_stdout

from flowzoo.bench import fid, sample, stacked, startup, step, study
from flowzoo.bench.report import Report
from flowzoo.runs.output import command
from flowzoo.runs.refusal import UserErrors, refuse
from flowzoo.runs.signals import handled_by

COMMANDS = {"step": step, "stacked": stacked, "sample": sample, "study": study, "fid": fid, "startup": startup}


class Help(ArgumentDefaultsHelpFormatter):
    """Tells the defaults that are a word or a number."""

    def _get_help_string(self, action: Action) -> str | None:
        return super()._get_help_string(action) if isinstance(action.default, str | int | float) else action.help


def main() -> int:
    parser = ArgumentParser("flowzoo.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for name, module in COMMANDS.items():
        about = (module.__doc__ or "").splitlines()[0]
        module.configure(commands.add_parser(name, help=about, description=about, formatter_class=Help))
    args = parser.parse_args()
    report = Report(args.command, vars(args), sys.stdout)
    try:
        with handled_by(report.stop), redirect_stdout(sys.stderr):  # what training prints for people
            return COMMANDS[args.command].measure(args, report)
    except UserErrors as error:
        refuse("flowzoo.bench", error)
    except KeyboardInterrupt:
        print("flowzoo.bench: stopped; the lines above are whole", file=sys.stderr)
        return 130


if __name__ == "__main__":
    command(main)
