"""Images as tensors: decoded, resized, cropped and normalised as the contract says.

Pillow reads untrusted bytes here, so it is bounded: few formats, and a size that is checked before
any pixel is decoded. It is imported only for a contract with images. No I/O.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from fourways_api.image_input import ImageInput
from fourways_api.installing import install_command
from fourways_runtime.errors import ConfigError

from .columns import Array
from .values import Faults

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
EXAMPLE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
)
"""One black pixel."""

MAX_PIXELS = 2**25
"""Maximum number of pixels of an image before it is resized; each takes up to 4 bytes."""


class ImageReader:
    """Decodes images for one input. Thread-safe."""

    def __init__(self, wanted: ImageInput) -> None:
        """Read the settings. Raises ConfigError if Pillow is not installed."""
        try:
            from PIL import Image, ImageOps, UnidentifiedImageError
        except ImportError:
            raise ConfigError(f"Pillow is not installed: {install_command('images')}") from None
        self._wanted = wanted
        self._image, self._ops = Image, ImageOps
        self._unknown = UnidentifiedImageError
        self._filter = Image.Resampling[wanted.filter.upper()]
        self._mean = np.array(wanted.mean or (0.0,), np.float32)
        self._std = np.array(wanted.std or (1.0,), np.float32)

    def read(self, raws: Sequence[bytes], kind: np.dtype[Any]) -> tuple[Array, Faults]:
        """Return the tensor (N, *shape) of images, and a fault for each that is none."""
        made = np.zeros((len(raws), *self._wanted.shape), kind)
        faults: Faults = {}
        for at, raw in enumerate(raws):
            pixels, fault = self._pixels(raw)
            if fault:
                faults[at] = fault
            else:
                made[at] = self._normal(pixels, kind)
        return made, faults

    def _pixels(self, raw: bytes) -> tuple[Any, str]:
        if not raw:
            return None, "missing"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", self._image.DecompressionBombWarning)
                found = self._image.open(BytesIO(raw), formats=FORMATS)
            if found.width * found.height > MAX_PIXELS:
                size = f"{found.width} x {found.height}"
                return None, f"is an image of {size} pixels, at most {MAX_PIXELS:,} are read"
            return self._fitted(found.convert(self._wanted.mode)), ""
        except self._unknown:
            return None, f"is no image in {', '.join(FORMATS)}"
        except (self._image.DecompressionBombError, self._image.DecompressionBombWarning):
            return None, f"is an image of more than {MAX_PIXELS:,} pixels"
        except (OSError, ValueError, SyntaxError, EOFError, OverflowError, IndexError) as error:
            # Pillow raises these for damaged files; their texts may quote the bytes.
            return None, f"is a damaged image ({type(error).__name__})"

    def _fitted(self, found: Any) -> Any:
        size = (self._wanted.width, self._wanted.height)
        if self._wanted.fit == "Crop":
            return self._ops.fit(found, size, self._filter)
        return found if found.size == size else found.resize(size, self._filter)

    def _normal(self, pixels: Any, kind: np.dtype[Any]) -> Array:
        values: Array = np.asarray(pixels)
        if values.ndim == 2:
            values = values[:, :, np.newaxis]
        if kind.kind == "f":
            scaled = values.astype(np.float32) * np.float32(self._wanted.scale)
            values = (scaled - self._mean) / self._std
        return values.transpose(2, 0, 1) if self._wanted.layout == "CHW" else values
