"""What this machine must have before a run begins, and who starts the processes that train one run together."""

import os
import shutil

from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from flowzoo.runs.store import Unfit
from flowzoo.training.loop import Loop


def check_here(loop: Loop) -> None:
    """Raises Unfit for a run that this machine cannot train, before anything is written."""
    environments_of(loop)
    if loop.compile_mode is not None:
        check_compiler(loop.device.type, f"trainer.compile={str(loop.compile).lower()}", "trainer.compile=false")


def check_compiler(device: str, asked: str, instead: str) -> None:
    """Raises Unfit without what torch.compile needs: a C++ compiler for a CPU, Triton's C compiler for a GPU."""
    names = {"cpu": [os.environ.get("CXX", "g++")]}.get(device, [os.environ.get("CC", "gcc"), "clang"])
    if not any(map(shutil.which, names)):
        raise Unfit(f"{asked}: there is no compiler here ({', '.join(names)}); allowed is {instead}")


def environments_of(loop: Loop) -> list[ClusterEnvironment]:
    """The plugins that tell Lightning's Trainer of the other processes; none where Lightning finds out by itself.

    By itself it takes the tasks of a SLURM job for the processes of any run in that job. Raises Unfit for a number of
    tasks with which the processes would wait for each other.
    """
    processes = loop.processes
    if processes == 1:
        rank_zero_only.rank = 0  # type: ignore[attr-defined]  # it was SLURM's number of this task
        return [LightningEnvironment()]
    if "SLURM_JOB_ID" not in os.environ:
        return []
    nodes = loop.num_nodes
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))  # of srun; a batch script is one process
    if tasks == processes:
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(processes // nodes))  # Lightning refuses --ntasks alone
        return [SLURMEnvironment(auto_requeue=False)]
    if tasks == nodes == 1:
        return [LightningEnvironment()]
    raise Unfit(
        f"trainer.devices={loop.devices} and trainer.num_nodes={nodes} in a SLURM step of {tasks} tasks: "
        f"allowed is a task for each device, srun --nodes={nodes} --ntasks-per-node={processes // nodes}"
    )
