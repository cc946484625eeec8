"""What a package holds. `conf` stays at the top of the repository and becomes `flowzoo/conf` in a wheel."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["flowzoo*", "sweeps*", "analysis*"]), "flowzoo.conf"],
    package_dir={"flowzoo.conf": "conf"},
    package_data={
        "flowzoo": ["**/*.safetensors", "**/*.json", "**/*.jsonl"],
        "flowzoo.conf": ["**/*.yaml"],
        "sweeps": ["*.yaml", "studies/*.yaml"],
        "analysis": ["*.css", "*.js"],
    },
)
