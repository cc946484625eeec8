"""python -m sweeps search STUDY [words] [-j K]: Optuna's ask and tell over the parameters of a formulation."""

from argparse import ArgumentParser, Namespace

from flowzoo.runs.signals import shielded
from sweeps.run import add_jobs


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="a name in sweeps/studies or a YAML file")
    parser.add_argument("words", nargs="*", metavar="key=value", help="as for flowzoo.train; n_trials=N, storage=URL")
    add_jobs(parser)


@shielded
def main(args: Namespace) -> int:
    """Works on the study until n trials have a result; starts it where there is none. Returns the exit code."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from rich.console import Console

    from sweeps.search.local import workers
    from sweeps.search.queue import Queue
    from sweeps.search.study import load
    from sweeps.search.table import front
    from sweeps.search.worker import work
    from sweeps.words import place

    study = load(args.study, args.words)
    try:
        objective = instantiate(study.objective, sweep=study.name, words=list(study.overrides))
    except InstantiationException as error:
        raise ValueError(f"objective={dict(study.objective)}: {error.__cause__ or error}") from error
    low, high = ({p.name: end(p) for p in study.parameters.values()} for end in (lambda p: p.low, lambda p: p.high))
    objective.check(low, high)
    folder = place(study.name, study.overrides)
    with Queue(study, folder, {**objective.described(), "study": study.described()}) as queue:
        code = workers(args, queue) if args.jobs > 1 else work(queue, objective)
        if not code:
            Console().print(front(queue.trials, list(study.objectives), list(study.parameters)))
            print(f"python -m analysis.report {folder} -o {folder / 'report'}")
    return code
