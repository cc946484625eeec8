"""Commands that only compose, list or print answer without importing torch."""

import subprocess
import sys

import pytest

COMMANDS = [
    ["flowzoo.train", "--help"],
    ["flowzoo.train", "--cfg", "job"],
    ["flowzoo.train", "trainer=stacked", "variant=rf", "--cfg", "job"],
    ["flowzoo.train", "trainer.steps=0"],
    ["sweeps", "list", "sd3_61"],
    ["sweeps", "run", "demo", "trainer.steps=0"],
    ["sweeps", "run", "demo", "-j", "2", "trainer.log_every=0"],
    ["sweeps", "plan", "--help"],
    ["sweeps", "retry", "demo", "--all"],
    ["analysis.rank", "--help"],
    ["flowzoo", "--help"],
    ["flowzoo", "train", "--help"],
]
CODE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit:
    pass
print(*sorted({"torch", "lightning"} & {*sys.modules}), file=open("imported", "w"))
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_torch_stays_out(command: list[str], tmp_path) -> None:
    subprocess.run([sys.executable, "-c", CODE, *command], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "imported").read_text() == "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["imported"]
