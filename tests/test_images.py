"""Reading pictures of every kind, and refusing what is none."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capxai.data.images import read_image
from capxai.errors import ImageError

COCO_MINI = Path(__file__).resolve().parents[2] / "shared" / "coco-mini"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) * 2], axis=2).astype(np.uint8)


def corners(height: int = 16, width: int = 24) -> np.ndarray:
    """Draw a white picture whose upper left quarter is red and upper right quarter is green."""
    image = np.full((height, width, 3), 255, dtype=np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    return image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, size: tuple[int, int], depth: int, color: int, rows: bytes, extra: bytes = b"") -> None:
    """Write a PNG by hand: ``rows`` with their filter bytes, ``extra`` chunks before the data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def check_kind(image: np.ndarray) -> None:
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tiff", "a.ppm"])
def test_lossless_formats(tmp_path: Path, name: str) -> None:
    Image.fromarray(gradient()).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    image = read_image(str(tmp_path / name))
    check_kind(image)
    np.testing.assert_array_equal(image, gradient())
    image[0, 0] = 1  # the array is the caller's own


def test_jpeg_and_its_grey_form(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    difference = np.abs(read_image(tmp_path / "a.jpg").astype(int) - gradient())
    assert difference.max() <= 12
    Image.fromarray(gradient()).convert("L").save(tmp_path / "grey.jpg", quality=95)
    grey = read_image(tmp_path / "grey.jpg")
    check_kind(grey)
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 0] == grey[..., 2]).all()


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), gradient())


def test_grey_png(tmp_path: Path) -> None:
    Image.fromarray(gradient()[..., 1]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(gradient()[..., 1:2], 3, axis=2))


def test_one_bit_png(tmp_path: Path) -> None:
    bits = Image.fromarray(gradient()[..., 1] > 99)
    assert bits.mode == "1"
    bits.save(tmp_path / "a.png")
    expected = np.where(gradient()[..., 1:2] > 99, 255, 0).repeat(3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_palette_with_transparency_lies_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "one.png", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "one.png"), [[RED, WHITE]])
    palette.save(tmp_path / "each.png", transparency=bytes([255, 51]))  # blue at a fifth: 255 - 0.2 * 255 = 204
    np.testing.assert_array_equal(read_image(tmp_path / "each.png"), [[RED, (204, 204, 255)]])


def test_alpha_lies_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0, 255], [0, 0, 255, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[RED, WHITE, (204, 204, 204)]])
    Image.fromarray(pixels[..., [0, 3]], "LA").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), [[WHITE, WHITE, (204, 204, 204)]])


def test_transparent_color_lies_on_white(tmp_path: Path) -> None:
    Image.fromarray(corners()).save(tmp_path / "a.png", transparency=RED)
    expected = corners()
    expected[:8, :12] = WHITE
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    values = [0, 128, 129, 257, 300, 32768, 65406, 65407, 65535]  # over 257, rounded: 0 0 1 1 1 128 254 255 255
    rows = b"\0" + struct.pack(">9H", *values)
    write_png(tmp_path / "a.png", (9, 1), 16, 0, rows)
    image = read_image(tmp_path / "a.png")
    check_kind(image)
    for channel in range(3):
        assert image[0, :, channel].tolist() == [0, 0, 1, 1, 1, 128, 254, 255, 255]
    write_png(tmp_path / "clear.png", (9, 1), 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 300)))
    assert read_image(tmp_path / "clear.png")[0, :, 0].tolist() == [0, 0, 1, 1, 255, 128, 254, 255, 255]


def test_sixteen_bit_tiff_and_color(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "a.tiff")
    assert read_image(tmp_path / "a.tiff")[0, :, 0].tolist() == [0, 128, 255]
    write_png(tmp_path / "rgb.png", (2, 1), 16, 2, b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 32896, 65535))
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), [[RED, (0, 128, 255)]])


def test_thirty_two_bit_grey_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 2.5]], dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match=r"32-bit grey values \(0 to 2.5\).*Convert it to 8 bits"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = corners()
    stored = {  # what a camera stores: the inverse of what EXIF 2.3 table 6 says the viewer must do
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # shown after turning clockwise
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= 2


def test_malformed_exif_is_no_obstacle(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01\x02")
    assert read_image(tmp_path / "a.jpg").shape == gradient().shape


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - RED).max() <= 3


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in (RED, GREEN, BLUE)]
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50, **options)
    np.testing.assert_array_equal(read_image(tmp_path / name), np.full((4, 6, 3), RED))


def test_first_picture_of_a_multi_picture_jpeg(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:], quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - RED).max() <= 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_one_pixel_wide(tmp_path: Path, shape: tuple[int, int]) -> None:
    Image.fromarray(np.full((*shape, 3), 7, dtype=np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (*shape, 3)


def test_missing_folder_empty_and_text(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("a dog on a table", encoding="utf-8")
    for name, found in {
        "none.jpg": "does not exist. Expected a picture file (JPEG,",
        "text.jpg/inside.jpg": "does not exist",
        ".": "is a folder. Expected a picture file",
        "empty.jpg": "is empty (0 bytes)",
        "text.jpg": "is not a picture that capxai can read",
        "nul\0.jpg": "cannot be reached (embedded null",
    }.items():
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        assert f"'{tmp_path / name}' {found}" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tiff"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_cut_off_file(tmp_path: Path, name: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ImageError, match="is damaged or cut off|is not a picture that capxai can read") as caught:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_png(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", (4, 4), 8, 2, b"\0" * 52)
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[20] ^= 0xFF  # in the header: its checksum is now wrong
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match="is damaged or cut off|is not a picture"):
        read_image(tmp_path / "a.png")


def test_decompression_bomb(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", (60_000, 60_000), 1, 0, b"")
    with pytest.raises(ImageError, match="is too large to open safely. Expected at most 178,956,970 pixels"):
        read_image(tmp_path / "a.png")


def test_programs_are_never_started(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="is not a picture that capxai can read"):
        read_image(tmp_path / "a.eps")


def test_no_right_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the superuser may read anything
    with pytest.raises(ImageError, match="a.png' may not be read. .* Give yourself the right"):
        read_image(tmp_path / "a.png")


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="is a device or pipe"):
        read_image(tmp_path / "pipe.jpg")


def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.jpg")
        with pytest.raises(ImageError, match="is a device or pipe"):
            read_image("s.jpg")


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="the photographs of coco-mini are not here")
def test_photographs() -> None:
    photographs = sorted((COCO_MINI / "val2017").glob("*.jpg"))
    assert len(photographs) >= 79
    for path in photographs:
        image = read_image(path)
        check_kind(image)
        assert min(image.shape[:2]) > 100 and image.std() > 5
