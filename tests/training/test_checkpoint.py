from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.runs.files import RunError, saying
from flowzoo.training.checkpoint import (
    LIGHTNINGS,
    Checkpoints,
    load,
    read_row,
    save,
    save_weights,
    step_of,
    weights_of,
)


def network() -> StackedBackbone:
    torch.manual_seed(0)
    return StackedBackbone([nn.Linear(3, 2), nn.Linear(3, 2)])


def state(net: StackedBackbone, diverged: int = 0) -> dict[str, Any]:
    """As `Program.state` gives it."""
    rows = net.flat.detach()
    return {
        "weights": rows,
        "ema": {"updates": 2, "decay": 0.5, "bias_correction": True, "shadow": 0.5 * rows},
        "optimizer": {"step": torch.tensor(7), "exp_avg": 2 * rows, "exp_avg_sq": rows.square()},
        "since_last_record": [[1.0, 2.0], [3.0, 4.0], 5.0],
        "diverged_at": [0, diverged],
        "best": [0.25, 0.5],
    }


def lightnings(step: int) -> dict[str, Any]:
    return {**dict.fromkeys(LIGHTNINGS, 0), "global_step": step}


def saved(path: Path) -> StackedBackbone:
    net = network()
    save_weights(path, weights_of(net, state(net), 1), step=7, val_loss=0.5)
    return net


def test_raw_and_ema_come_back(tmp_path: Path) -> None:
    net = saved(tmp_path / "best.ckpt")
    raw, step = read_row(tmp_path / "best.ckpt", net, "raw")
    assert step == 7
    assert torch.equal(raw, net.flat[1])
    ema, _ = read_row(tmp_path / "best.ckpt", net, "ema")
    torch.testing.assert_close(ema, 0.5 * net.flat[1].detach() / (1 - 0.5**2))


def test_a_file_a_run_and_back(tmp_path: Path) -> None:
    net, paths = network(), [tmp_path / name / "last.ckpt" for name in ("a", "b")]
    files = Checkpoints(paths, net)
    files.save_checkpoint({**lightnings(7), "program": state(net)}, "wherever")
    one = torch.load(paths[1], weights_only=True)
    assert one["state_dict"].keys() == {"backbone.weight", "backbone.bias"}
    assert (one["since_last_record"], one["val_loss_ema"]) == ([2.0, 4.0, 5.0], 0.5)
    back, told = files.load_checkpoint("wherever"), state(net)
    assert back["global_step"] == 7
    for name in ("since_last_record", "best"):
        assert back["program"][name] == told[name]
    torch.testing.assert_close(
        {k: back["program"][k] for k in ("weights", "optimizer")}, {k: told[k] for k in ("weights", "optimizer")}
    )
    torch.testing.assert_close(back["program"]["ema"]["shadow"], told["ema"]["shadow"])


def test_one_that_diverged_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    net, paths = network(), [tmp_path / name / "last.ckpt" for name in ("a", "b")]
    files = Checkpoints(paths, net)
    files.save_checkpoint({**lightnings(7), "program": state(net)}, "wherever")
    files.save_checkpoint({**lightnings(9), "program": state(net, diverged=8)}, "wherever")
    assert [step_of(path) for path in paths] == [9, 7]
    with pytest.raises(ValueError, match=r"checkpoints of steps \[7, 9\] cannot go on together"):
        files.load_checkpoint("wherever")


@pytest.mark.parametrize("other", [nn.Linear(4, 2), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))])
def test_another_network_is_refused(tmp_path: Path, other: nn.Module) -> None:
    saved(tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match=r"best\.ckpt does not fit this backbone"):
        read_row(tmp_path / "best.ckpt", StackedBackbone([other]), "raw")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best\.ckpt"):
        read_row(tmp_path / "best.ckpt", network(), "ema")


def test_no_code_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path / "best.ckpt")
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 7


def test_a_file_cut_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    saved(path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        for read in (load, step_of):
            with pytest.raises(RunError, match=r"cannot read .*last\.ckpt, it is cut short .* --from scratch"):
                read(path)


def test_a_full_disk_is_named_and_leaves_the_old_file() -> None:
    with (
        pytest.raises(RunError, match="cannot write /dev/full: No space left on device"),
        saying("cannot write /dev/full"),
    ):
        save({"x": torch.zeros(10_000)}, Path("/dev/full"))
