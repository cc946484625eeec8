"""Draws images from a trained run: `python -m flowzoo.sample run=DIR prompt="a red circle, left of a blue square!"`."""

from flowzoo.imports import swiftly
from flowzoo.paths import user_path
from flowzoo.runs.files import check_output
from flowzoo.runs.output import follow
from flowzoo.runs.trained import Trained, launch_trained


def prompts_of(trained: Trained) -> list[str]:
    """The prompts that the command names, as they were typed. Raises ValueError where there are none or two kinds."""
    prompt, file = trained.options.prompt, trained.options.prompts
    if (prompt is None) == (file is None):
        raise ValueError('allowed is one of prompt="..." and prompts=FILE, with one prompt a line')
    if prompt is not None:
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise ValueError(f"prompt={prompt!r}: these bytes are no text; allowed is UTF-8") from None
        return [prompt]
    path = user_path(file)
    if not path.is_file():
        raise ValueError(f"prompts={file}: there is no such file")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would cut at more than ends of lines
    except UnicodeDecodeError:
        raise ValueError(f"prompts={file}: the file is no text; allowed is UTF-8") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"prompts={file}: the file holds no prompt")
    return prompts


def check(trained: Trained) -> None:
    """Raises ValueError for prompts or an `out` that cannot be used."""
    prompts_of(trained)
    if trained.options.out:
        check_output("out", trained.options.out, user_path(trained.options.out))


def sample(trained: Trained) -> None:
    from hydra.utils import instantiate

    with swiftly():
        from flowzoo.build import loop_of, model_of, plain
        from flowzoo.picture import save_grid
        from flowzoo.prompted import default_name, sample_prompts

    prompts, options, cfg = prompts_of(trained), trained.options, trained.cfg
    images = sample_prompts(
        model_of(cfg, trained.run.path, options.checkpoint, options.weights),
        prompts,
        n=options.n,
        steps=options.steps,
        guidance=float(options.guidance),
        seed=options.seed,
        solver=instantiate(cfg.solver),
        device=loop_of(cfg).device,
    )
    kept = trained.run.path / "samples"
    out = user_path(options.out) if options.out else kept / default_name(vars(options), prompts, plain(cfg.solver))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_grid(out, images, columns=options.n)
    print(f"{len(images)} images, a row a prompt: {out}")


if __name__ == "__main__":
    follow()
    launch_trained("sample", check, sample)
