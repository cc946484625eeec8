"""Draws images from a trained run: `python -m flowzoo.sample run=DIR prompt="a red circle, left of a blue square!"`."""

from flowzoo.imports import swiftly
from flowzoo.paths import user_path
from flowzoo.runs.files import check_output
from flowzoo.runs.output import follow
from flowzoo.runs.trained import Trained, launch_trained


def prompts_of(trained: Trained) -> list[str]:
    """The prompts that the command names, as they were typed. Raises ValueError where there are none or two kinds."""
    prompts = _told(trained, "prompt")
    if prompts is None:
        raise ValueError('allowed is one of prompt="..." and prompts=FILE, with one prompt a line')
    return prompts


def negatives_of(trained: Trained) -> list[str] | None:
    """What guidance leads away from: one for all, one for each, or None. Raises ValueError for another number."""
    negatives, prompts = _told(trained, "negative"), prompts_of(trained)
    if trained.options.negatives is not None and negatives is not None and len(negatives) != len(prompts):
        raise ValueError(
            f"negatives={trained.options.negatives}: {len(negatives)} negative prompts for {len(prompts)} prompts; "
            'allowed is one for each, or negative="..." for all'
        )
    return negatives


def _told(trained: Trained, key: str) -> list[str] | None:
    """One text given as `key`, or those of the file given as `key`s, a line each; None where neither is given."""
    text, file = getattr(trained.options, key), getattr(trained.options, f"{key}s")
    if text is not None and file is not None:
        raise ValueError(f'allowed is one of {key}="..." and {key}s=FILE, a line each')
    if text is not None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{key}={text!r}: these bytes are no text; allowed is UTF-8") from None
        return [text]
    if file is None:
        return None
    path = user_path(file)
    if not path.is_file():
        raise ValueError(f"{key}s={file}: there is no such file")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would cut at more than ends of lines
    except UnicodeDecodeError:
        raise ValueError(f"{key}s={file}: the file is no text; allowed is UTF-8") from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise ValueError(f"{key}s={file}: the file holds no prompt")
    return texts


def check(trained: Trained) -> None:
    """Raises ValueError for prompts, negative prompts or an `out` that cannot be used."""
    negatives_of(trained)
    if trained.options.out:
        check_output("out", trained.options.out, user_path(trained.options.out))


def sample(trained: Trained) -> None:
    from hydra.utils import instantiate

    with swiftly():
        from flowzoo.build import loop_of, model_of, plain
        from flowzoo.picture import save_grid
        from flowzoo.prompted import default_name, sample_prompts

    options, cfg = trained.options, trained.cfg
    prompts, negatives = prompts_of(trained), negatives_of(trained)
    images = sample_prompts(
        model_of(cfg, trained.run.path, options.checkpoint, options.weights),
        prompts,
        n=options.n,
        steps=options.steps,
        guidance=float(options.guidance),
        negatives=negatives,
        interval=options.interval and tuple(options.interval),
        seed=options.seed,
        batch_size=options.batch_size,
        solver=instantiate(cfg.solver),
        device=loop_of(cfg).device,
    )
    kept = trained.run.path / "samples"
    name = default_name(vars(options), prompts, negatives, plain(cfg.solver))
    out = user_path(options.out) if options.out else kept / name
    out.parent.mkdir(parents=True, exist_ok=True)
    save_grid(out, images, columns=options.n)
    print(f"{len(images)} images, a row a prompt: {out}")


if __name__ == "__main__":
    follow()
    launch_trained("sample", check, sample)
