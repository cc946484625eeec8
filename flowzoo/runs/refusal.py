"""What a command is refused with, told in one line on stderr."""

import re
import sys
from typing import NoReturn

from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from flowzoo.paths import conf
from flowzoo.runs.files import RunError

UserErrors = (ValueError, HydraException, OmegaConfBaseException, YAMLError, RunError)


def refuse(program: str, error: Exception) -> NoReturn:
    """Prints `error` as one line and exits with 2."""
    print(f"{program}: {one_line(error)}", file=sys.stderr)
    sys.exit(2)


def one_line(error: BaseException) -> str:
    """An error's message and its cause's, without Hydra's line breaks, search path and links."""
    if isinstance(error, ConfigCompositionException) and (unknown := _unknown_key(error)):
        return unknown
    texts = [str(error)]
    if isinstance(error.__cause__, OmegaConfBaseException):
        texts.append(str(error.__cause__))
    lines = [
        line
        for text in texts
        for line in re.split(r"\n\s*(?:Search path|Config search path|full_key):", text)[0].splitlines()
    ]
    options = [line.strip() for line in lines if line.startswith("\t")]
    words = [line.strip() for line in lines if not line.startswith("\t") and not line.startswith("See http")]
    told = " ".join([*filter(None, words), ", ".join(options)]).strip()
    if missing := re.search(r"Could not load '([\w/]+)/[^/']+'", told):  # one of a list, for which Hydra names none
        known = sorted(file.stem for file in (conf() / missing[1]).glob("*.yaml"))
        return f"{told} Available options in '{missing[1]}': {', '.join(known)}"
    # Hydra advises to append what no default stands for; here it would be refused in the next line
    return re.sub(r" To append to your default list use \+.*", "", told)


def _unknown_key(error: ConfigCompositionException) -> str:
    """The line for a key that the composed config does not have; empty for any other error.

    Hydra's own advises `+key`, which is refused wherever nothing reads the key.
    """
    typed, cause = re.match(r"Could not override '([^']+)'", str(error)), error.__cause__
    parent = getattr(cause, "parent_node", None)
    if not (typed and isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(parent, DictConfig)):
        return ""
    place, _, name = (cause.full_key or typed[1]).rpartition(".")
    if (place, name) == ("", "stack"):
        return f"{typed[1]}: allowed with trainer=stacked alone, which is a sweep's engine=stacked"
    keys = ", ".join(str(key) for key in parent if not str(key).startswith("_")) or "none"
    return f"{typed[1]}: there is no {name} in {place or 'the config'} as it is composed; allowed there: {keys}"
