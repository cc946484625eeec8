import os

# Tests start many interpreters. Where these may not keep what they compile, as in many containers, each compiles all of
# torch and Lightning, which takes three times as long as importing them.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""

# isort: split
import flowzoo  # noqa: F401  before torch: sets how its threads wait

# isort: split
import gc
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from numbered import Numbers
from prepared import Prepared

from flowzoo.backbones import fused
from flowzoo.encoders.clip import build_clip, save_clip

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.2, 0.3],
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def architecture() -> dict[str, Any]:
    """Of a CLIP that trains in seconds."""
    return ARCHITECTURE


@pytest.fixture(scope="session")
def random_clip(tmp_path_factory: pytest.TempPathFactory, architecture: dict[str, Any]) -> Path:
    """A CLIP of random weights in a file. It scores images as the shipped one does, in a twentieth of the time."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_clip(architecture)
    about = {"name": "random", "quality": {}, "data": "none", "command": ""}
    save_clip(model, path, architecture=architecture, about=about)
    return path


@pytest.fixture(scope="session")
def random_extractor(random_clip: Path) -> list[str]:
    """The words with which a command scores by it."""
    return ["extractor=clip_file", f"extractor.weights={random_clip}"]


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command's `main` says of words that it refuses: one line, and the exit code 2."""

    def run(main: Callable[[], object], *words: str) -> str:
        monkeypatch.setattr(sys, "argv", [main.__module__, *words])
        with pytest.raises(SystemExit) as exit:
            main()
        message = capsys.readouterr().err
        assert exit.value.code == 2
        assert message.count("\n") == 1
        return message

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: one worker begins with them, the other takes from its end, and both end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    """Starts commands without the seconds in which an interpreter imports torch and Lightning."""
    with Prepared() as process:
        yield process


def pytest_configure() -> None:
    """Python's collector rests until all tests are found, and comes more rarely then: it takes a tenth of the time."""
    gc.disable()
    gc.set_threshold(20_000, 20, 20)


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.fixture
def in_a_terminal() -> Iterator[None]:
    """Ctrl-C and a hang-up reach this test and what it starts, also where the tests run as `nohup make test &`."""
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGHUP, hangup)


@pytest.fixture(
    params=["1", pytest.param("0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def kernel_laws(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Runs the tests of a file in a process of its own: Triton's interpreter is chosen before Triton is imported.

    On the CPU with the interpreter and, where there is one, on a GPU without it.
    """
    if not fused.TRITON:
        pytest.skip("Triton is not installed")

    def run(laws: Path) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(laws)]
        env = os.environ | {"TRITON_INTERPRET": request.param}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:]

    return run
