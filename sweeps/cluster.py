"""What a job asks the cluster for: the config group `cluster`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate

from flowzoo.runs.config import config_loader
from flowzoo.runs.files import explained
from flowzoo.runs.slurm import check_notice
from flowzoo.runs.text import key_of

# Options of sbatch that have a key here, under all their names.
_KEYS = {
    **{"time": "timeout_min", "t": "timeout_min", "timeout-min": "timeout_min", "time-min": "timeout_min"},
    **{"signal": "notice_s", "signal-delay-s": "notice_s", "partition": "partition", "p": "partition"},
    **{"account": "account", "A": "account", "qos": "qos", "q": "qos", "constraint": "constraint", "C": "constraint"},
    **{"gpus-per-node": "gpus_per_node", "cpus-per-task": "cpus_per_task", "c": "cpus_per_task", "mem": "mem_gb"},
}
# Those on which it depends whether a job finds its work, and this command the job.
_OURS = (
    *("array", "a", "nodes", "N", "ntasks", "n", "ntasks-per-node", "job-name", "J", "output", "o", "error", "e"),
    *("open-mode", "wrap", "parsable", "no-requeue", "clusters", "M", "test-only", "wait", "W"),
)


@dataclass(frozen=True)
class Cluster:
    """conf/cluster/slurm.yaml says what each field means. Raises ValueError for a number that is out of range."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    timeout_min: int
    gpus_per_node: int | None
    cpus_per_task: int | None
    mem_gb: float | None
    runs_per_job: int
    parallel: int | None
    max_requeues: int
    notice_s: int
    setup: Sequence[str]
    python: str | None
    sbatch: Mapping[str, Any]

    def __post_init__(self) -> None:
        least = {"timeout_min": 1, "runs_per_job": 1, "parallel": 1, "max_requeues": 0, "notice_s": 1}
        least |= {"gpus_per_node": 0, "cpus_per_task": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            optional = value is None and name in ("parallel", "gpus_per_node", "cpus_per_task")
            if not optional and (type(value) is not int or value < bound):
                raise ValueError(f"cluster.{name}={value}: allowed are integers from {bound}")
        mem = self.mem_gb
        if mem is not None and (type(mem) not in (int, float) or not 0 < mem < inf):
            raise ValueError(f"cluster.mem_gb={mem}: allowed are numbers above 0")
        for name in ("partition", "account", "qos", "constraint", "python"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str | int) or not str(value).strip()):
                raise ValueError(f"cluster.{name}={value}: allowed is a text, and null for the cluster's own default")
        if not isinstance(self.setup, list) or not all(isinstance(line, str) for line in self.setup):
            raise ValueError(f"cluster.setup={self.setup}: allowed is a list of shell lines")
        check_notice("cluster.timeout_min", self.timeout_min, "cluster.notice_s", self.notice_s)
        self._check_sbatch()

    def _check_sbatch(self) -> None:
        """A second word for what has a key here would win over it, unseen by what is checked."""
        if not isinstance(self.sbatch, Mapping):
            raise ValueError(
                f"cluster.sbatch={self.sbatch}: allowed are options of sbatch, +cluster.sbatch.OPTION=VALUE"
            )
        for option in self.sbatch:
            name = str(option).replace("_", "-")
            if name in _KEYS:
                raise ValueError(f"cluster.sbatch.{option}: allowed is cluster.{_KEYS[name]}")
            if name in _OURS:
                raise ValueError(
                    f"cluster.sbatch.{option}: this command decides it; allowed are other options of sbatch"
                )

    def parameters(self) -> dict[str, Any]:
        """As submitit's AutoExecutor takes them."""
        asked = {
            "timeout_min": self.timeout_min,
            "gpus_per_node": self.gpus_per_node,
            "cpus_per_task": self.cpus_per_task,
            "mem_gb": self.mem_gb,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
            "slurm_array_parallelism": self.parallel or sys.maxsize,
            "slurm_signal_delay_s": self.notice_s,
            "slurm_additional_parameters": dict(self.sbatch) or None,
        }
        return {key: value for key, value in asked.items() if value is not None}


def split_cluster(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of the group `cluster`, and the others. Where configs are searched for concerns both."""
    ours = [word for word in words if key_of(word).split(".")[0] == "cluster"]
    others = [word for word in words if word not in ours]
    return ours + [word for word in others if key_of(word) == "hydra.searchpath"], others


def cluster_of(words: Sequence[str]) -> Cluster:
    """Raises RunError and Hydra's own errors."""
    with config_loader() as loader:
        cfg = loader.load_configuration("submit", list(words), RunMode.RUN).cluster
    try:
        return instantiate(cfg, _convert_="all")
    except InstantiationException as error:
        raise explained(error) from None
