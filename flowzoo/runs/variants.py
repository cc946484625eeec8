"""The paper's 61 and rf/spectrum as options of Hydra's group `variant`."""

from functools import cache

from hydra.core.config_store import ConfigStore

from flowzoo.formulation.declared import word_of
from flowzoo.formulation.names import VARIANTS, family
from flowzoo.formulation.spelling import file_name


@cache
def register() -> None:
    """Put them into Hydra's ConfigStore, which is one a process, as options of the group `variant`, by file name."""
    for name, config in VARIANTS.items():
        schedule, sampler = config["path"]["schedule"], config["sampler"]
        node = {
            "defaults": [
                {"override /path": file_name(family(name.partition("/")[0] if name.startswith("rf") else name))},
                {"override /sampler": word_of(sampler["_target_"])},
                "_self_",
            ],
            "path": {"schedule": {key: value for key, value in schedule.items() if key != "_target_"}},
            "sampler": {key: value for key, value in sampler.items() if key != "_target_"},
        }
        ConfigStore.instance().store(
            group="variant", name=file_name(name), node=node, package="_global_", provider="flowzoo"
        )
