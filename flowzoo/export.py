"""Writes a trained network for use elsewhere: `python -m flowzoo.export run=DIR format=diffusers out=FOLDER`.

Beside the weights is a JSON file of what they are: the network's class and parameters, text, formulation, latents.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flowzoo.imports import swiftly
from flowzoo.paths import user_path
from flowzoo.runs.files import Refused, check_output, check_place, replace, saying, share, write_atomically
from flowzoo.runs.output import follow
from flowzoo.runs.trained import Trained, launch_trained

if TYPE_CHECKING:
    from flowzoo.job import Model

ABOUT = "flowzoo.json"  # in a folder for diffusers, whose own config.json says what diffusers reads


def check(trained: Trained) -> None:
    """Raises ValueError where `out` is missing, is there already or cannot be written."""
    given, folder = trained.options.out, trained.options.format == "diffusers"
    kind = "folder" if folder else "file"
    if not given:
        raise ValueError(f"out= is missing: allowed is a new {kind}")
    path = user_path(given)
    if not folder:
        check_output("out", given, path, "safetensors")
    check_place("out", given, path)
    for each in (path,) if folder else (path, path.with_suffix(".json")):
        if each.exists() and not (folder and each.is_dir() and not any(each.iterdir())):
            raise ValueError(f"out={given}: there is {each} already; allowed is a new {kind}")


def export(trained: Trained) -> None:
    with swiftly():
        from flowzoo.build import model_of

    options, out = trained.options, user_path(trained.options.out)
    model = model_of(trained.cfg, trained.run.path, options.checkpoint, options.weights)
    about = about_of(trained, model)
    if options.format == "diffusers":
        _to_diffusers(out, model, about)
        print(f"diffusers' SD3Transformer2DModel, and {ABOUT} about it: {out}")
    else:
        _to_safetensors(out, model, about)
        print(f"weights, and {out.with_suffix('.json').name} about them: {out}")


def about_of(trained: Trained, model: "Model") -> dict[str, Any]:
    """What the JSON file holds; `backbone` with `channels`, `size` and `text` makes the network."""
    from flowzoo.build import backbone_words, plain

    cfg = trained.cfg
    channels, *size = model.latent_shape
    scale, shift = model.autoencoder.affine
    spec = model.text.spec
    return {
        "run": trained.run.path.name,
        "weights": trained.options.weights,
        "checkpoint": trained.options.checkpoint,
        "backbone": plain(backbone_words(cfg, model.autoencoder)),
        "channels": channels,
        "size": size,
        "text": {"lengths": spec.lengths, "dims": spec.dims, "pooled": spec.pooled},
        "encoders": plain(cfg.text),
        "formulation": {"name": model.formulation.name, "path": plain(cfg.path)},
        "autoencoder": {**plain(cfg.autoencoder), "scale": scale, "shift": shift},
    }


def _to_safetensors(out: Path, model: "Model", about: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    tensors = {name: x.contiguous() for name, x in model.backbone.state_dict().items()}
    write_atomically(out, lambda part: save_file(tensors, part))
    replace(out.with_suffix(".json"), _json(about))


def _to_diffusers(out: Path, model: "Model", about: Mapping[str, Any]) -> None:
    """Raises Refused for what diffusers cannot hold, and where it is not installed."""
    from flowzoo.backbones.sd3_weights import to_sd3
    from flowzoo.formulation.schedule import RF
    from flowzoo.formulation.target import Velocity

    otherwise = "allowed is format=safetensors"
    formulation = model.formulation
    if type(formulation.schedule) is not RF or type(formulation.target) is not Velocity:
        raise Refused(
            "format=diffusers: diffusers samples an SD3Transformer2DModel by rectified flow, the velocity on rf; "
            f"this run is {formulation.name}; {otherwise}"
        )
    try:
        config, state = to_sd3(model.backbone)
    except ValueError as error:
        raise Refused(f"format=diffusers: {error}; {otherwise}") from error
    try:
        from diffusers import SD3Transformer2DModel
    except ImportError as error:
        raise Refused("format=diffusers needs the package diffusers: pip install 'flowzoo[sd3]'") from error
    theirs: Any = SD3Transformer2DModel(**config)
    theirs.load_state_dict(state, strict=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{uuid4().hex[:8]}")
    with saying(f"cannot write {out}"):
        try:
            theirs.save_pretrained(part)
            (part / ABOUT).write_text(_json(about))
            for file in part.iterdir():
                share(file)
            part.replace(out)  # over nothing, or an empty folder
        finally:
            rmtree(part, ignore_errors=True)


def _json(about: Mapping[str, Any]) -> str:
    return json.dumps(about, indent=2) + "\n"


if __name__ == "__main__":
    follow()
    launch_trained("export", check, export)
