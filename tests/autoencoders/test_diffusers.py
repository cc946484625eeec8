"""Against diffusers itself, on small random networks that are saved as its pipelines save theirs."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowzoo.autoencoders.diffusers import DiffusersAutoencoder
from flowzoo.autoencoders.latents import Latents

diffusers = pytest.importorskip("diffusers")
FILE = "diffusion_pytorch_model.safetensors"


def save(folder: Path, **more) -> Path:
    """An AutoencoderKL as SD3 has it, with 16 channels, a shift and no quantising convolutions, but narrow; f = 4."""
    config = {"in_channels": 3, "out_channels": 3, "latent_channels": 16, "block_out_channels": (8, 8, 16)}
    config |= {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    config |= {"layers_per_block": 1, "norm_num_groups": 4, "scaling_factor": 1.5305, "shift_factor": 0.0609}
    config |= {"use_quant_conv": False, "use_post_quant_conv": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        diffusers.AutoencoderKL(**(config | more)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sd3") / "vae")


def images() -> Tensor:
    return torch.randint(256, (3, 3, 16, 24), generator=torch.Generator().manual_seed(1)).byte()


def test_it_encodes_and_decodes_as_diffusers_does(folder: Path) -> None:
    ours, theirs = DiffusersAutoencoder(3, folder), diffusers.AutoencoderKL.from_pretrained(folder)
    assert (ours.channels, ours.factor) == (16, 4)
    with torch.no_grad():
        z = (theirs.encode(images() / 127.5 - 1).latent_dist.mode() - 0.0609) * 1.5305
        x = theirs.decode(z / 1.5305 + 0.0609).sample
    assert torch.equal(ours.encode(images()), z)
    assert z.shape == (3, 16, 4, 6)
    processor = diffusers.image_processor.VaeImageProcessor()  # as a pipeline makes its pictures
    theirs = torch.from_numpy(processor.postprocess(x, output_type="np")).permute(0, 3, 1, 2)
    assert torch.equal(ours.decode(z), (255 * theirs).round().byte())
    assert not any(p.requires_grad for p in ours.parameters())


def test_without_a_shift_and_with_quantising_convolutions_as_sd1(tmp_path: Path) -> None:
    more = {"latent_channels": 4, "shift_factor": None, "scaling_factor": 0.18215}
    save(tmp_path / "vae", use_quant_conv=True, use_post_quant_conv=True, **more)
    ours, theirs = DiffusersAutoencoder(3, tmp_path / "vae"), diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae")
    with torch.no_grad():
        z = theirs.encode(images() / 127.5 - 1).latent_dist.mode() * 0.18215
    assert torch.equal(ours.encode(images()), z)


def test_pieces_are_the_whole_batch(folder: Path) -> None:
    latents = Latents(DiffusersAutoencoder(3, folder), [0.0] * 16, [1.0] * 16)
    z = latents.encode(images())
    back = latents.decode(z)
    latents._pieces.pixels = 1
    torch.testing.assert_close(latents.encode(images()), z, rtol=1e-4, atol=1e-5)
    assert (latents.decode(z).int() - back.int()).abs().max() <= 1  # of 255: a tie may be rounded otherwise


def test_weights_of_half_precision_compute_in_float32(folder: Path, tmp_path: Path) -> None:
    diffusers.AutoencoderKL.from_pretrained(folder).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    half = DiffusersAutoencoder(3, tmp_path / "half")
    assert half.encode(images()).dtype == torch.float32
    assert half.fingerprint != DiffusersAutoencoder(3, folder).fingerprint


def test_the_fingerprint_is_that_of_config_and_weights(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    (moved / "README.md").write_text("where it is from")
    assert DiffusersAutoencoder(3, moved).fingerprint == DiffusersAutoencoder(3, folder).fingerprint
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"scaling_factor": 1.0}))
    assert DiffusersAutoencoder(3, moved).fingerprint != DiffusersAutoencoder(3, folder).fingerprint


def test_what_does_not_fit_is_refused_in_one_line(folder: Path, tmp_path: Path, caplog) -> None:
    state, config = load_file(folder / FILE), json.loads((folder / "config.json").read_text())

    def refusal(name: str, state: dict | None = state, config: dict | None = config, channels: int = 3) -> str:
        made = tmp_path / name
        made.mkdir()
        if config:
            (made / "config.json").write_text(json.dumps(config))
        if state:
            save_file(state, made / FILE)
        with pytest.raises(ValueError, match=f"weights={made}: ") as error:
            DiffusersAutoencoder(channels, made)
        message = str(error.value).removeprefix(f"weights={made}: ")
        assert "\n" not in message
        return message

    name = "decoder.conv_in.weight"
    assert refusal("less", {k: x for k, x in state.items() if k != name}) == f"{name} is missing"
    assert refusal("more", state | {"other": torch.zeros(1)}) == "other is not of this network"
    assert name in refusal("narrow", state | {name: state[name][:4].contiguous()})
    assert (
        refusal("class", config=config | {"_class_name": "VQModel"}) == "its class is VQModel; allowed is AutoencoderKL"
    )
    assert refusal("bare", config=None).startswith("config.json cannot be read")
    assert refusal("pickled", state=None).startswith(
        "there are no safetensors in it; no other files of weights are ever read"
    )
    assert refusal("grey", channels=1) == "they are of images with 3 channels; allowed are those of images with 1"


def test_a_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"weights=/none/vae: there is no such folder; allowed is a folder"):
        DiffusersAutoencoder(3, "/none/vae")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"weights=nobody/vae: there is no such folder, and the hub does not give it"):
        DiffusersAutoencoder(3, "nobody/vae")


def test_without_diffusers_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"needs the package diffusers: pip install 'flowzoo\[sd3\]'"):
        DiffusersAutoencoder(3, folder)
