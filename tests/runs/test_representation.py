"""Names of what a backbone sees."""

from hydra.types import RunMode

from flowzoo.runs.config import config_loader
from flowzoo.runs.representation import representation

ABOUT = {"factor": 4, "latent_channels": 8}


def test_each_autoencoder_of_ours_has_a_short_name():
    told = {
        "pixels": "pixels",
        "pca": "pca-f4-c16",
        "pca_short": "pca-f4-c6",
        "kl": "kl-f4-c8",
        "diffusers": "diffusers-f4-c8",
    }
    with config_loader() as loader:
        for option, name in told.items():
            words = [f"autoencoder={option}"] + ["autoencoder.weights=x"] * (option in ("kl", "diffusers"))
            config = loader.load_configuration("train", words, RunMode.RUN)
            assert representation({"autoencoder": dict(config.autoencoder)}, ABOUT) == name


def test_what_is_unusual_is_told():
    pca = {"_target_": "flowzoo.autoencoders.pca.BlockPCA", "factor": 2, "channels": 3}
    given = {"autoencoder": {**pca, "gain": 0.25, "spectrum_power": 0.5}}
    assert representation(given, {}) == "pca-f2-c3-power0.5-gain0.25"
    assert (
        representation({"autoencoder": {"_target_": "flowzoo.autoencoders.pixels.Pixels", "gain": 1.0}}, {}) == "pixels"
    )
    assert representation({"autoencoder": {"_target_": "mine.Wavelets", "levels": 3}}, ABOUT) == "wavelets-f4-c8"
    assert representation({}, ABOUT) == ""
