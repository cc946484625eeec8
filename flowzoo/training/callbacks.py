"""Callbacks of one's own: Lightning's, which look at a training and change nothing."""

from collections.abc import Mapping
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import Timer

# The hooks that may be overridden, in the order of a fit; docs/extending.md says when each fires.
FIRING = (
    *("setup", "on_load_checkpoint", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start"),
    *("on_train_batch_end", "on_save_checkpoint", "on_train_epoch_end", "on_train_end", "on_fit_end", "on_exception"),
    "teardown",
)
_STATE = "checkpoints hold nothing of callbacks, which begin anew when training goes on"
# Those that fire and would mislead.
REFUSED = {
    "state_dict": _STATE,
    "load_state_dict": _STATE,
    "on_before_optimizer_step": "at that time the weights are updated already, and no parameter has a gradient",
}
# All that Lightning knows.
HOOKS = tuple(name for name in vars(Callback) if name in (*FIRING, *REFUSED) or name.startswith("on_"))
OF_LIGHTNING = (Timer,)  # of its own, those that need nothing that is not here


def check_callback(name: str, kind: Any) -> None:
    """Raises ValueError for a class that cannot do its work in this training loop; `name` is its key in `callbacks`."""
    if not (isinstance(kind, type) and issubclass(kind, Callback)):
        raise ValueError(f"callbacks.{name}: {_path(kind)} is no class derived from lightning.Callback")
    for one in kind.__mro__[: kind.__mro__.index(Callback)]:
        if one in OF_LIGHTNING:
            continue
        if one.__module__.split(".")[0] == "lightning":
            told = f"{_path(kind)} is" if one is kind else f"{_path(kind)} is derived from {one.__name__},"
            raise ValueError(
                f"callbacks.{name}: {told} one of Lightning's that need automatic optimisation, self.log, validation "
                f"by Lightning or checkpoints of their own; allowed of Lightning's: {_words(OF_LIGHTNING)}"
            )
        for hook in HOOKS:
            if hook in vars(one) and hook not in FIRING:
                why = REFUSED.get(hook, "it never fires")
                raise ValueError(
                    f"callbacks.{name}: {_path(kind)} overrides {hook}: {why}; allowed are {', '.join(FIRING)}"
                )


def check_together(callbacks: Mapping[str, Callback]) -> None:
    """Raises ValueError for two that Lightning cannot tell apart."""
    known: dict[str, str] = {}
    for name, callback in callbacks.items():
        if (first := known.setdefault(callback.state_key, name)) != name:
            raise ValueError(
                f"callbacks.{first} and callbacks.{name} are both {_path(type(callback))}; allowed is one of a class, "
                "or a state_key of its own for each"
            )


def _path(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}".lstrip(".")


def _words(kinds: tuple[type, ...]) -> str:
    return ", ".join(kind.__name__ for kind in kinds)
