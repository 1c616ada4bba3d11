"""Which folders become packages; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cellseg_d2", "cellseg_d2.*"]), "cellseg_d2.configs"],
    package_dir={"cellseg_d2.configs": "configs"},  # so that an installed package has them too
)
