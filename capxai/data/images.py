"""Reading any common picture file as RGB."""

from __future__ import annotations

import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from capxai.errors import ImageError
from capxai.types import ImageArray

# Named one by one, because Pillow also opens formats that start other programs (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_EXPECTED = "Expected a picture file (JPEG, PNG, WebP, GIF, BMP, TIFF or PPM)."

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path) -> ImageArray:
    """Read a picture as RGB, the right way up.

    Grey, palette, 1-bit and CMYK pictures become RGB; transparency is laid on white; 16-bit grey is scaled (not
    clipped) to 8 bit; the EXIF orientation is applied; of an animation the first frame is taken.

    Returns:
        (H, W, 3) uint8 RGB in [0, 255].

    Raises:
        ImageError: The file is missing, empty, a folder, not readable, not a picture, cut off, or too large to open
            safely.
    """
    path = Path(path)
    _refuse_what_is_no_file(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Pillow warns of odd EXIF and of large (not yet dangerous) pictures; both are read all the same.
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as picture:
                picture.load()
                return _to_rgb(_upright(picture), path)
    except ImageError:
        raise
    except PermissionError as error:
        raise ImageError(f"'{path}' may not be read. {_EXPECTED} Give yourself the right to read it.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"'{path}' is too large to open safely. Expected at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels. "
            "Scale it down first."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"'{path}' is not a picture that capxai can read. {_EXPECTED} Convert it to one of these (HEIC and RAW "
            "photographs too), or give another file."
        ) from error
    except Exception as error:  # a decoder may fail on damaged bytes with nearly any exception
        raise ImageError(
            f"'{path}' is damaged or cut off ({_reason(error)}). Expected a complete picture file. Copy or download it "
            "again."
        ) from error


def _refuse_what_is_no_file(path: Path) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"'{path}' does not exist. {_EXPECTED} Check the path.") from error
    except (OSError, ValueError) as error:
        raise ImageError(
            f"'{path}' cannot be reached ({_reason(error)}). {_EXPECTED} Check the path and its rights."
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"'{path}' is a folder. {_EXPECTED} Name the pictures inside it, for example '{path}/*.jpg'.")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"'{path}' is a device or pipe. {_EXPECTED} Save the picture to a file first.")
    if status.st_size == 0:
        raise ImageError(f"'{path}' is empty (0 bytes). {_EXPECTED} Copy or download it again.")


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; unreadable EXIF counts as none, since the pixels themselves are sound."""
    try:
        turn = _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF blocks of photographs are often malformed, in every way
        turn = None
    return picture.transpose(turn) if turn is not None else picture


def _to_rgb(picture: Image.Image, path: Path) -> ImageArray:
    """Convert any mode to an (H, W, 3) uint8 RGB array."""
    if picture.mode.startswith("I;16"):
        return _from_sixteen_bit(np.asarray(picture), picture.info.get("transparency"))
    if picture.mode in ("I", "F"):
        values = np.asarray(picture)
        if picture.format == "PNG" and picture.mode == "I":  # how some Pillow versions show 16-bit grey
            return _from_sixteen_bit(values, picture.info.get("transparency"))
        raise ImageError(
            f"'{path}' has 32-bit grey values ({values.min():g} to {values.max():g}), and does not say which of them "
            "are black and white. Expected 8 or 16 bits. Convert it to 8 bits first."
        )
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return np.array(picture.convert("RGB"), dtype=np.uint8)


def _from_sixteen_bit(values: NDArray[Any], transparent: object) -> ImageArray:
    """Scale (H, W) grey values of [0, 65535] to [0, 255], rounding; the transparent value, if any, becomes white."""
    wide = values.astype(np.int64).clip(0, 65535)
    grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
    if isinstance(transparent, int):
        grey[wide == transparent] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)  # (H, W, 3)


def _reason(error: BaseException) -> str:
    """Say in a few words what a foreign exception said."""
    text = (str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)).splitlines()
    return text[0].rstrip(".") if text and text[0] else type(error).__name__


def picture_array(image: str | Path | ImageArray) -> ImageArray:
    """Return a picture that is given as a file or as an array.

    Args:
        image: A path, or (H, W, 3) uint8 RGB in [0, 255].

    Raises:
        ImageError: The file cannot be read, or the array is no such picture.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size
    ):
        return image
    kind = (
        f"an array of shape {image.shape} and type {image.dtype}"
        if isinstance(image, np.ndarray)
        else f"a {type(image).__name__}"
    )
    raise ImageError(
        f"The picture is {kind}. Expected (H, W, 3) uint8 RGB, or the path of a picture file. Convert it, or give the path."
    )
