"""Commands that only compose, list, print or rank, in fresh processes: wall time, and whether torch was imported."""

import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from flowzoo.bench.report import Report, spread
from flowzoo.runs.arguments import positive

COMMANDS = (
    ("flowzoo.train", "--help"),
    ("flowzoo.train", "--cfg", "job"),
    ("sweeps", "list", "sd3_61"),
    ("analysis.rank", "results.csv"),
)
HEAVY = ("torch", "lightning")
# Runs a module as `python -m` does and leaves the heavy imports' names in the file "imported".
CODE = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    print(*(name for name in {HEAVY} if name in sys.modules), file=open("imported", "w"))
"""
RESULTS = "variant,fid,clip,steps,guidance\nrf,10,0.30,50,5\neps/linear,12,0.29,50,5\n"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--repeats", type=positive, default=5, help="of each command")


def measure(args: Namespace, report: Report) -> int:
    slowest = 0.0
    for command in COMMANDS:
        name = " ".join(["python", "-m", *command])
        with tempfile.TemporaryDirectory() as folder, report.measuring(command=name):
            (Path(folder) / "results.csv").write_text(RESULTS)
            run(["-c", CODE, *command], folder)  # fills the cache of compiled modules, too
            imported = (Path(folder) / "imported").read_text().split()
            laps = [run(["-m", *command], folder) for _ in range(args.repeats)]
            slowest = max(slowest, statistics.median(laps))
            report.line(command=name, **spread(laps), imported=imported)
    report.line(slowest_ms=round(1000 * slowest, 1))
    return 1 if report.failed else 0


def run(words: list[str], folder: str) -> float:
    """Seconds that a fresh Python takes. Raises RuntimeError with what it said where it fails."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return seconds
