"""The door: a trained model that segments slides and pictures."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightmuseg.areas.area import WholeSlide
from lightmuseg.areas.region_of_interest import check_region
from lightmuseg.engine.pipeline import fill_rows
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.engine.rows import MemoryRows
from lightmuseg.errors import InputError
from lightmuseg.files import is_file
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers.image import ArrayReader

from .batch import Progress, require_fit, segment_slides
from .job import SlideJob, result_name
from .options import Options
from .outcome import CHANGED_SINCE, done_before
from .result import SlideResult
from .sample_tiles import sample_tiles, tiles_with_structure

if TYPE_CHECKING:
    import torch

    from lightmuseg.models.model import Model
    from lightmuseg.runtimes import Runtime

logger = logging.getLogger(__name__)

OUTPUT = "lightmuseg_results"


class Segmenter:
    """Segment slides with a trained model.

    Invalid options are refused at once. The network is loaded with the first slide or picture, and its runtime is
    compared with PyTorch on pixels of that.

    Args:
        model: a name of ``lightmuseg models``, the path of a ``model.pt``, or a :class:`.Model`.
        network: of another architecture than the package's, to load the model's weights into.
        device: of PyTorch, such as "cpu" or "cuda:0"; by default the first GPU where there is one.
        runtime: what runs the network, see :func:`.make_runtime`; or one that is made already.
        amp: mixed precision; by default on a GPU.
        int8: folder of the network in INT8; by default beside the model.
        options: those of :class:`.Options`, but for ``class_names`` and ``mpp``, which the model gives.

    Raises:
        InputError: for a model that cannot be read, a device or runtime that is not here, or an invalid option.

    Example::

        segmenter = Segmenter()
        result = segmenter("slide.svs", "results")
        result.measurements["tumor_area"]
        classes = segmenter.predict(pixels, mpp=0.5)
    """

    def __init__(
        self,
        model: str | Path | Model = "tumor",
        *,
        network: torch.nn.Module | None = None,
        device: str | torch.device | None = None,
        runtime: str | Runtime | None = None,
        amp: bool | None = None,
        int8: str | Path | None = None,
        **options: Any,
    ) -> None:
        from lightmuseg.models.model import Model
        from lightmuseg.runtimes import int8_folder

        self.model = model if isinstance(model, Model) else Model.open(model)
        self.device = _usable_device(device)
        self.amp = self.device.type == "cuda" if amp is None else amp
        card, on_gpu = self.model.card, self.device.type == "cuda"
        values = {
            "output_dir": OUTPUT, "batch_size": 16 if on_gpu else 4, "workers": os.cpu_count() or 1,
            **{name: value for name, value in options.items() if value is not None},
        }  # fmt: skip
        if isinstance(values.get("region"), (str, Path)) and is_file(values["region"]):
            values["region"] = str(Path(values["region"]).absolute())
        values["output_dir"] = Path(values["output_dir"]).absolute()
        self.options = Options(class_names=card.class_names, mpp=card.mpp, **values)
        self.output_stride = 2 if self.options.factor > 1 else 1
        self._network = network
        self._runtime: Runtime | None = None
        self._kind = runtime if isinstance(runtime, str) else None
        self._int8 = Path(int8) if int8 else int8_folder(self.model.path)
        if runtime is not None and self._kind is None:
            self._runtime = runtime
        # a runtime that is given made its proof elsewhere
        self._is_proven = self._runtime is not None
        self._require_possible()

    def __call__(
        self, slide: str | Path, output: str | Path | None = None, mpp: float | None = None,
        progress: Progress | None = None,
    ) -> SlideResult:  # fmt: skip
        """Segment one slide; with the option ``resume`` results that are there already are returned as they are.

        Args:
            slide: its file, or the folder of a DICOM series.
            output: folder of the folders of results; the slide's is called as the slide.
            mpp: um/px of its level 0; by default what the file says.
            progress: is called with the slide, its tiles that are done and all its tiles.

        Raises:
            InputError: for a slide that cannot be read, or results that are there already.
        """
        slide = Path(slide).absolute()
        changes = {"output_dir": output and Path(output).absolute(), "slide_mpp": mpp}
        options = dataclasses.replace(self.options, **{k: v for k, v in changes.items() if v is not None})
        folder = options.output_dir / result_name(slide)
        before = done_before(folder, slide, options)
        if before is not None:
            if before.message == CHANGED_SINCE:
                logger.warning("%s: %s", slide, CHANGED_SINCE)
            return SlideResult(folder)
        runtime = self.runtime([slide], options)
        show = progress and functools.partial(progress, slide)
        SlideJob(slide, runtime, options, self.describe(), progress=show).run()
        return SlideResult(folder)

    def run(self, slides: str | Path | Sequence[str | Path], progress: Progress | None = None) -> list[dict[str, Any]]:
        """Segment slides, one after the other; a slide that fails does not stop the others.

        Args:
            slides: files, or folders of DICOM series.
            progress: as above.

        Returns:
            The rows of ``report.csv`` on these slides.

        Raises:
            InputError: after all slides, where one failed.
        """
        paths = [Path(slide).absolute() for slide in ([slides] if isinstance(slides, (str, Path)) else slides)]
        runtime = self.runtime(paths)
        return segment_slides(paths, runtime, self.options, self._describe_model(), progress)

    def predict(self, pixels: np.ndarray, mpp: float) -> np.ndarray:
        """The classes of a picture; no files are written.

        Args:
            pixels: RGB uint8 [H, W, 3].
            mpp: um per pixel.

        Returns:
            Class indices uint8 [H, W]: 0 other tissue, from 1 the model's classes.
        """
        return self._mapped(pixels, mpp, ("classes",))[0]

    def predict_probabilities(self, pixels: np.ndarray, mpp: float) -> tuple[np.ndarray, np.ndarray]:
        """The classes of a picture, as :meth:`predict` gives them, and their probabilities.

        Args:
            pixels: RGB uint8 [H, W, 3].
            mpp: um per pixel.

        Returns:
            Class indices uint8 [H, W], and probabilities uint8 [C, H, W], 255 for 1: of a model of one class that
            class's, else those of everything else and of the classes, from 1.
        """
        classes, probabilities = self._mapped(pixels, mpp, ("classes", "probabilities"))
        return classes, probabilities

    def _mapped(self, pixels: np.ndarray, mpp: float, names: Sequence[str]) -> list[np.ndarray]:
        """Arrays of the rows of a picture's map, [..., H, W] on the picture's own grid."""
        reader = ArrayReader(pixels, mpp)
        view, factor = ModelView(reader, self.options.mpp), self.options.factor
        size, tile = (view.width, view.height), self.model.card.tile_size
        runtime = self._proven(lambda: tiles_with_structure(view, tile))
        area = WholeSlide(reader.levels[0].width, reader.levels[0].height)
        plan = plan_tiles(size, view.scale, area, runtime.tile_size, self.options.overlap, factor)
        step0 = view.scale * factor
        rows = MemoryRows(plan, self.options.mpp * factor, step0, self.options.class_names)
        fill_rows(view, area, plan, runtime, rows, self.options.batch_size, "probabilities" in names)
        maps = [np.concatenate([band.copy() for band in rows.bands(1024, name)], axis=-2) for name in names]
        rows_of, columns_of = (
            np.minimum(((np.arange(side) + 0.5) / step0).astype(np.intp), most - 1)
            for side, most in zip(pixels.shape[:2], maps[0].shape)
        )
        return [array[..., rows_of[:, None], columns_of] for array in maps]

    def runtime(self, slides: Sequence[Any] = (), options: Options | None = None) -> Runtime:
        """The network, loaded when it is first asked for, and proven on the first of ``slides`` that can be read."""
        return self._proven(lambda: sample_tiles(slides, options or self.options, self.model.card.tile_size))

    def describe(self) -> dict[str, Any]:
        """What a record of results says of the model and of what runs it."""
        return {**self._describe_model(), **self.runtime().info.plain()}

    def _describe_model(self) -> dict[str, Any]:
        about = self.model.describe()
        if self._network is None:
            return about
        known = {name: about[name] for name in ("weights_sha256", "tile_size")}
        return {**known, "network": type(self._network).__name__}

    def _proven(self, sample: Callable[[], np.ndarray | None]) -> Runtime:
        """The runtime, made where there is none, or none that was proven, which is tried again on these tiles."""
        if self._runtime is None or not self._is_proven:
            tiles = sample()
            self._is_proven = tiles is not None and len(tiles) > 0
            if self._runtime is None or self._is_proven:
                self._load(tiles)
        assert self._runtime is not None
        return self._runtime

    def _load(self, sample: np.ndarray | None) -> None:
        from lightmuseg.runtimes import make_runtime

        stride = {} if self._network is not None else {"output_stride": self.output_stride}
        network = self.model.network(self._network, by_imagenet=True, **stride)
        runtime = make_runtime(
            network, self._kind, self.model.card.tile_size, self.options.batch_size, self.device, self.amp, self._int8,
            sample,
        )  # fmt: skip
        require_fit(runtime, self.options)
        self._runtime = runtime

    def _require_possible(self) -> None:
        from lightmuseg.runtimes import require_int8, require_runtime

        if self._kind not in (None, "auto"):
            require_runtime(self._kind, self.device)
        if self._kind == "openvino_int8":
            require_int8(self._int8, self.model.card.tile_size, self.output_stride)
        if not isinstance(self.amp, bool):
            raise InputError(f"--amp {self.amp}: write True or False.")
        if self.options.region is not None:
            check_region(self.options.region)


def _usable_device(device: str | torch.device | None) -> torch.device:
    import torch

    from lightmuseg.runtimes import require_device

    if device is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"--device {device}: is no device of PyTorch; give cpu or cuda:0.") from error
    require_device(found)
    return found
