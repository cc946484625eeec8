from pathlib import Path

import pytest
import torch
from torch import nn

from flowzoo.runs.files import RunError, saying
from flowzoo.training.checkpoint import load_weights, prefixed, save, save_weights, step_of, write_atomically
from flowzoo.training.ema import EMA


def trained() -> tuple[nn.Module, EMA]:
    net = nn.Linear(3, 2)
    ema = EMA(net, every=1, decay=0.5, bias_correction=True)
    for step in (1, 2):
        with torch.no_grad():
            net.weight.add_(1)
        ema.update(net, step)
    return net, ema


def test_raw_and_ema_come_back(tmp_path: Path) -> None:
    net, ema = trained()
    save_weights(tmp_path / "best.ckpt", prefixed(net.state_dict()), ema.state_dict(), step=7, val_loss=0.5)
    other = nn.Linear(3, 2)
    assert load_weights(tmp_path / "best.ckpt", other, "raw") == 7
    assert torch.equal(other.weight, net.weight)
    load_weights(tmp_path / "best.ckpt", other, "ema")
    assert torch.equal(other.weight, ema.weights()["weight"])
    assert not torch.equal(other.weight, net.weight)


@pytest.mark.parametrize("other", [nn.Linear(4, 2), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))])
def test_another_network_is_refused(tmp_path: Path, other: nn.Module) -> None:
    net, ema = trained()
    save_weights(tmp_path / "best.ckpt", prefixed(net.state_dict()), ema.state_dict(), step=7, val_loss=0.5)
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(tmp_path / "best.ckpt", other, "raw")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best\.ckpt"):
        load_weights(tmp_path / "best.ckpt", nn.Linear(3, 2), "ema")


def test_no_code_is_loaded(tmp_path: Path) -> None:
    net, ema = trained()
    save_weights(tmp_path / "best.ckpt", prefixed(net.state_dict()), ema.state_dict(), step=7, val_loss=0.5)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 7


def test_a_writer_that_dies_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def dies(part: Path) -> None:
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(RunError, match=r"cannot write .*file: disk full"):
        write_atomically(path, dies)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_cut_anywhere_is_named(tmp_path: Path) -> None:
    net, ema = trained()
    path = tmp_path / "last.ckpt"
    save_weights(path, prefixed(net.state_dict()), ema.state_dict(), step=7, val_loss=0.5)
    whole = path.read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(RunError, match=r"cannot read .*last\.ckpt, it is cut short .* --from scratch"):
            step_of(path)
        with pytest.raises(RunError, match=r"cannot read .*last\.ckpt"):
            load_weights(path, nn.Linear(3, 2), "ema")


def test_a_full_disk_is_named_and_leaves_the_old_file() -> None:
    with (
        pytest.raises(RunError, match="cannot write /dev/full: No space left on device"),
        saying("cannot write /dev/full"),
    ):
        save({"x": torch.zeros(10_000)}, Path("/dev/full"))
