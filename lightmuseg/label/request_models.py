"""What a request may hold: of a segmentation, of the next patch, of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, StrictFloat, StrictInt, ValidationError

from lightmuseg.errors import InputError

# beyond any number that is meant
MAX_NUMBER = 10**9
Positive = Annotated[int, Field(strict=True, gt=0, lt=MAX_NUMBER)]
Number = TypeVar("Number")
Pair = tuple[Number, Number]


class RequestModel(BaseModel):
    """Values by name; those that are None count as not given, those without a field are left out."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Take what a client sent.

        Raises:
            InputError: for the first value that is not of its field's kind or range.
        """
        given = {name: values[name] for name in cls.model_fields if values.get(name) is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            fault = error.errors()[0]
        name = str(fault["loc"][0])
        remedy = cls.model_fields[name].description
        raise InputError(f"{name} {ascii(given[name])[:80]}: {fault['msg']}; give {remedy}.")


class SegmentationRequest(RequestModel):
    """Which part of an image to segment, and what to answer; coordinates are level-0 pixels."""

    location: Pair[StrictInt] = Field((0, 0), description="[x, y] in level-0 pixels")
    size: Pair[StrictInt] = Field((0, 0), description="[width, height] in level-0 pixels, [0, 0] for everything")
    level: StrictInt = Field(0, description="a level of the image, the label image's resolution")
    # checked only: the engine's tiles overlap and are blended
    tile_size: Pair[Positive] = Field((1, 1), description="two whole numbers above 0")
    min_poly_area: StrictInt | StrictFloat = Field(0, ge=0, description="a number of level-0 pixels, 0 or more")
    output: Literal["asap", "dsa", "json", "image"] = Field("image", description="asap, dsa, json or image")


class PatchRequest(RequestModel):
    """Where to look for the next patch: in one image, or in all."""

    image: str = Field("", description="the name of an image")
    patch_size: Pair[Positive] | None = Field(None, description="[width, height] in level-0 pixels, above 0")
    client_id: str = Field("", max_length=200, description="a name of at most 200 characters")


class TrainingOptions(RequestModel):
    """Options of a fine-tuning; those that are keys of train.json have its names."""

    max_epochs: Positive = Field(20, description="a whole number above 0")
    learning_rate: float = Field(1e-4, strict=True, gt=0, lt=MAX_NUMBER, description="a number above 0")
    batch_size: Positive = Field(3, description="a whole number of tiles above 0")
    held_out: float = Field(0.2, strict=True, gt=0, lt=1, description="a share between 0 and 1")
    seed: int = Field(42, strict=True, ge=0, lt=MAX_NUMBER, description="a whole number of 0 or more")
    use_version: int = Field(-1, strict=True, lt=MAX_NUMBER, description="a version's number, or -1 to train")
