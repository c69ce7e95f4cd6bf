"""The bundle as the MONAI Model Zoo takes it: with the package in its root, so that it runs wherever MONAI does.

python scripts/export_bundle.py [--output dist] [--download_url URL] [--push-to-hf NAME]

Writes OUTPUT/breast_he_lightmuseg_segmentation/ and a zip of it, named with the version, both whole or not at all. The
same commit gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import fire
import yaml

from lightmuseg import __version__
from lightmuseg.errors import InputError, first_line, report_faults_in_one_line
from lightmuseg.files import whole_folder, write_whole
from lightmuseg.models.packaged import NAMED
from lightmuseg.provenance import sha256_of

NAME = "breast_he_lightmuseg_segmentation"
ROOT = Path(__file__).resolve().parents[1]
WEIGHTS, TORCHSCRIPT = Path("models", "model.pt"), Path("models", "model.ts")
PARTS_OF_THE_BUNDLE = ("LICENSE", "configs", "docs", *(f"models/{file}" for file in NAMED.values()))
ONLY_FOR_MONAI_LABEL = ("label",)
# of a file in the Model Zoo's repository
SIZE_LIMIT = 25_000_000
NEEDED_BYTES = 150_000_000


def export(output: str = "dist", download_url: str = "", push_to_hf: str = "") -> None:
    """Write the bundle and a zip of it.

    Args:
        output: folder of both.
        download_url: where the files above 25 MB will lie, for large_files.yml, such as https://.../v0.2.0.
        push_to_hf: owner/name on the Hugging Face Hub to upload the bundle to as well; needs its client and a token.
    """
    folder = Path(output).resolve() / NAME
    archive = folder.with_name(f"{NAME}_v{__version__}.zip")
    if push_to_hf.count("/") != (1 if push_to_hf else 0):
        raise InputError(f"--push-to-hf {push_to_hf}: give the owner and the name of a repository, owner/name.")
    if push_to_hf:
        _require_hub(push_to_hf)
    for path in (folder, archive):
        if path.exists():
            raise InputError(f"{path}: is there already; delete it or choose another --output.")
    for path in (ROOT / "bundle" / "models" / file for file in NAMED.values()):
        if not path.is_file():
            raise InputError(f"{path}: no such file; make it with scripts/train_reference.sh.")
    with whole_folder(folder, NEEDED_BYTES) as partial:
        _copy(partial)
        _write_torchscript(partial)
        _write_large_files(partial, download_url)
        write_whole(archive, lambda temporary: _zip(partial, temporary))
    print(f"{folder}\n{archive}")
    if push_to_hf:
        print(_push(folder, push_to_hf))


def _copy(folder: Path) -> None:
    """What is written by hand: of the bundle the parts named above, of the package all but what MONAI Label needs."""
    parts = [ROOT / "bundle" / name for name in PARTS_OF_THE_BUNDLE]
    package = ROOT / "lightmuseg"
    left_out = [package / name for name in ONLY_FOR_MONAI_LABEL]
    for start, sources in ((ROOT / "bundle", parts), (ROOT, [package])):
        for path in sorted(file for source in sources for file in (source.rglob("*") if source.is_dir() else [source])):
            if path.is_file() and "__pycache__" not in path.parts and not any(path.is_relative_to(p) for p in left_out):
                target = folder / path.relative_to(start)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def _write_torchscript(folder: Path) -> None:
    """``ckpt_export``, run inside the folder as its users run it, so that the package there is what is exported."""
    command = [sys.executable, "-B", "-W", "ignore", "-m", "monai.bundle", "ckpt_export", "--net_id", "network_def"]
    options = {
        "--filepath": TORCHSCRIPT,
        "--ckpt_file": WEIGHTS,
        "--meta_file": Path("configs", "metadata.json"),
        "--config_file": Path("configs", "inference.json"),
    }
    words = [str(word) for option in options.items() for word in option]
    # TorchScript writes a module's constants in the order of a set
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONHASHSEED": "0"}
    done = subprocess.run([*command, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"{folder / WEIGHTS}: cannot be exported as TorchScript: {done.stderr.strip()[-500:]}")
    write_whole(folder / TORCHSCRIPT, lambda temporary: _without_sources(folder / TORCHSCRIPT, temporary))


def _without_sources(path: Path, target: Path) -> None:
    """A TorchScript archive less the tables that lead from its code to the source, whose paths they hold."""
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(target, "w") as kept:
        for member in given.infolist():
            if not member.filename.endswith((".debug_pkl", "/.data/serialization_id")):
                kept.writestr(_entry(member.filename), given.read(member))


def _write_large_files(folder: Path, download_url: str) -> None:
    large = []
    for path in _files(folder):
        if path.stat().st_size > SIZE_LIMIT:
            name = path.relative_to(folder).as_posix()
            url = {"url": f"{download_url.rstrip('/')}/{path.name}"} if download_url else {}
            large.append({"path": name, **url, "hash_val": sha256_of(path), "hash_type": "sha256"})
    if large and not download_url:
        print(
            "large_files.yml has no addresses: give --download_url for a pull request to the Model Zoo.",
            file=sys.stderr,
        )
    (folder / "large_files.yml").write_text(yaml.safe_dump({"large_files": large}, sort_keys=False), encoding="utf-8")


def _zip(folder: Path, target: Path) -> None:
    # the highest level takes seven seconds more for weights and makes 1 MB of 30 less
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in _files(folder):
            name = f"{NAME}/{path.relative_to(folder).as_posix()}"
            archive.writestr(_entry(name), path.read_bytes(), compress_type=zipfile.ZIP_DEFLATED)


def _entry(name: str) -> zipfile.ZipInfo:
    """A member that says neither when nor by whom it was made."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    return entry


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _require_hub(repository: str) -> None:
    """Prove before any work that the hub's client is there and lets somebody in."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError("--push-to-hf: needs the package huggingface_hub; pip install huggingface_hub.") from error
    try:
        huggingface_hub.whoami()
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise InputError(f"{repository}: the hub lets nobody in ({first_line(error)}); set HF_TOKEN.") from error


def _push(folder: Path, repository: str) -> str:
    """Upload a copy of the bundle, in which MONAI writes a README.md of its own; returns the commit's address."""
    import huggingface_hub
    from monai.bundle import push_to_hf_hub

    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, Path(copy) / NAME)
        try:
            return str(push_to_hf_hub(repo=repository, name=NAME, bundle_dir=copy, version=__version__))
        except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
            message = f"{repository}: cannot be uploaded to ({first_line(error)}); see that HF_TOKEN may write there."
            raise InputError(message) from error


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(export)
