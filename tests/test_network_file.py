"""What cannot hold weights is told without torch; what can is not refused."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flowzoo.metrics.extractor import SHIPPED
from flowzoo.network_file import CLIP, KL, check_weights, save_network
from flowzoo.runs.files import write_atomically


def test_whoever_may_read_other_files_may_read_these(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_network(torch.nn.Linear(1, 1), tmp_path / "own", CLIP, architecture={}, about={})
    write_atomically(tmp_path / "third", lambda part: save_file({"x": torch.zeros(1)}, part))
    assert len({(tmp_path / name).stat().st_mode for name in ("other", "own", "third")}) == 1


def test_files_with_weights_are_taken(tmp_path: Path) -> None:
    check_weights(SHIPPED, CLIP)
    check_weights(SHIPPED, None)
    state = {"w": torch.zeros(3)}
    save_file(state, tmp_path / "a")
    torch.save(state, tmp_path / "b")
    torch.save(state, tmp_path / "c", _use_new_zipfile_serialization=False)
    for name in "abc":
        check_weights(tmp_path / name, None)
        with pytest.raises(ValueError, match="train_clip"):
            check_weights(tmp_path / name, CLIP)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a text\n" * 20,
        pickle.dumps({"a": 1}),
        b"\x02" + bytes(7) + b"[]",
        b"\x02" + bytes(7) + b"{}" + b"more",
        SHIPPED.read_bytes()[:5],
        SHIPPED.read_bytes()[:500],
        SHIPPED.read_bytes()[:-1],
    ],
    ids=range(8),
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    for kind in (CLIP, KL, None):
        with pytest.raises(ValueError, match=r"does not hold weights; allowed is|cut short or damaged"):
            check_weights(path, kind)
