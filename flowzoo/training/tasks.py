"""How many processes train one run together, and who started them: Lightning, or SLURM's srun."""

import os

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from flowzoo.build import device_of, is_auto
from flowzoo.runs.store import RunError


def processes_of(cfg: DictConfig) -> int:
    """Devices of a node times nodes. `trainer.devices=auto` is every GPU that can be seen, or the CPU."""
    devices = cfg.trainer.devices
    if is_auto(devices):
        devices = torch.cuda.device_count() if device_of(cfg).type == "cuda" else 1
    return (devices if isinstance(devices, int) else len(devices)) * cfg.trainer.num_nodes


def is_first_process(cfg: DictConfig) -> bool:
    """Whether this process writes. One that trains a run alone does, whatever its number among SLURM's tasks is."""
    return processes_of(cfg) == 1 or rank_zero_only.rank == 0


def environments_of(cfg: DictConfig) -> list[ClusterEnvironment]:
    """The plugins that tell Lightning's Trainer of the other processes; none where Lightning finds out by itself.

    Lightning alone takes the tasks of a SLURM job for processes of every run in it. Raises RunError for a number of
    tasks with which the processes would wait for each other.
    """
    processes = processes_of(cfg)
    if processes == 1:
        rank_zero_only.rank = 0  # it was SLURM's number of this task
        return [LightningEnvironment()]
    if "SLURM_JOB_ID" not in os.environ:
        return []
    nodes = cfg.trainer.num_nodes
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))  # of srun; a batch script is one process
    if tasks == processes:
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(processes // nodes))  # Lightning knows no --ntasks
        return [SLURMEnvironment(auto_requeue=False)]
    if tasks == nodes == 1:
        return [LightningEnvironment()]
    raise RunError(
        f"trainer.devices={cfg.trainer.devices} and trainer.num_nodes={nodes} in a SLURM step of {tasks} tasks: allowed "
        f"is a task for each device, srun --nodes={nodes} --ntasks-per-node={processes // nodes}"
    )
