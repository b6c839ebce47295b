"""How an image becomes a tensor of the model: the settings of an input of type bytes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import ApiModel, Rule

Pixels = Annotated[int, Field(ge=1, le=4096)]
PerChannel = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1, max_length=3)
]


class ImageInput(ApiModel):
    """How an image becomes a tensor: decoded, resized, and (pixel x scale - mean) / std."""

    width: Pixels
    """Width of the tensor."""

    height: Pixels
    """Height of the tensor."""

    mode: Literal["RGB", "L"] = "RGB"
    """RGB has three channels, L (grey) one."""

    layout: Literal["CHW", "HWC"] = "CHW"
    """Order of a record's dimensions: channels first, as in PyTorch, or last, as in TensorFlow."""

    fit: Literal["Stretch", "Crop"] = "Stretch"
    """Stretch changes the sides' proportion. Crop keeps it, and cuts what is outside the middle."""

    filter: Literal["Nearest", "Bilinear", "Bicubic", "Lanczos"] = "Bilinear"
    """Filter by which pixels are resized."""

    scale: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1 / 255
    """Factor for pixels of 0 to 255. A model that reads whole numbers receives the pixels."""

    mean: PerChannel | None = None
    """Mean to subtract after scaling, one for all channels or one each."""

    std: PerChannel | None = None
    """Standard deviation to divide by, one for all channels or one each."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *(
            Rule(
                f"!has(self.{name}) || self.{name}.size() == 1"
                f" || self.{name}.size() == (has(self.mode) && self.mode == 'L' ? 1 : 3)",
                f"{name} has another number of values than the image has channels",
                "give one value, or one for each channel",
                f".{name}",
            )
            for name in ("mean", "std")
        ),
        Rule(
            "!has(self.std) || self.std.all(value, value > 0.0)",
            "a standard deviation is not above 0",
            "give the value that the model was trained with",
            ".std",
        ),
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a record in the model's tensor."""
        channels = 1 if self.mode == "L" else 3
        if self.layout == "CHW":
            return (channels, self.height, self.width)
        return (self.height, self.width, channels)
