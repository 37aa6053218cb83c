"""Good files of every format, each with something that a decoder must read, for mutations to start from."""

import struct
import warnings
import zlib
from functools import cache

from PIL import Image

from tests.images.containers import CORNERS, KEPT, box, grid, heic, imir, irot
from tests.images.files import corners, encoded, gif, noise, png, webp_canvas
from tests.images.test_containers import MOVIE_HEADER

SMALL = (48, 32)
_LOOP = struct.pack("<HHII", 0x8769, 4, 1, 8)
ENDLESS_EXIF = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 3) + _LOOP * 3 + b"\x08\0\0\0"
"""Tables of EXIF that lead back to themselves."""
_MANY = struct.pack(">HHII", 0x0112, 3, 0x7FFFFFFF, 8)
VAST_EXIF = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 65535) + _MANY * 4000
"""EXIF that promises more than there is, of everything."""
PROFILE = struct.pack(">I4s", 40_000, b"lcms") + bytes(range(256)) * 156
CLEAR = Image.merge("RGBA", (*noise(*SMALL).split(), Image.linear_gradient("L").resize(SMALL)))


@cache
def good_files(kind: str) -> dict[str, bytes]:
    """Return the files of a format by names."""
    makers = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp, "HEIC": _heic, "AVIF": _avif, "GIF": _gif}
    with warnings.catch_warnings(action="ignore"):  # Pillow remarks on the EXIF that it writes.
        return makers[kind]()


def _jpeg() -> dict[str, bytes]:
    image = noise(*SMALL)
    return {
        "baseline": encoded(image, "JPEG"),
        "progressive": encoded(image, "JPEG", progressive=True, restart_marker_blocks=2),
        "CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "grey, endless EXIF": encoded(image.convert("L"), "JPEG", exif=ENDLESS_EXIF),
        "vast EXIF, profile": encoded(image, "JPEG", exif=VAST_EXIF, icc_profile=PROFILE, comment=bytes(9000)),
        "MPO": encoded(image, "MPO", save_all=True, append_images=[image]),
    }


def _png() -> dict[str, bytes]:
    image = noise(*SMALL)
    palette = image.quantize(16)
    return {
        "RGB": encoded(image, "PNG"),
        "palette, clear": encoded(palette, "PNG", transparency=3),
        "alpha, profile": encoded(CLEAR, "PNG", icc_profile=PROFILE),
        "16 bits, EXIF": encoded(Image.new("I;16", SMALL, 40_000), "PNG", exif=VAST_EXIF),
        "animated": encoded(image, "PNG", save_all=True, append_images=[CLEAR]),
        "interlaced": _interlaced(),
        "bomb": png(20_000, 20_000, pixels=zlib.compress(bytes(200_000))),
    }


def _interlaced() -> bytes:
    """Return an interlaced PNG of 8 × 8 grey pixels, which Pillow only reads."""
    passes = b"".join((b"\0" + bytes(width)) * height for width, height in _PASSES)
    return png(8, 8, bits=8, pixels=zlib.compress(passes)).replace(b"\x08\0\0\0\0", b"\x08\0\0\0\x01", 1)


_PASSES = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))


def _webp() -> dict[str, bytes]:
    image = noise(*SMALL)
    return {
        "lossy": encoded(image, "WEBP"),
        "lossless": encoded(image, "WEBP", lossless=True),
        "alpha, EXIF": encoded(CLEAR, "WEBP", exif=ENDLESS_EXIF),
        "profile, vast EXIF": encoded(image, "WEBP", icc_profile=PROFILE, exif=VAST_EXIF),
        "animated": encoded(image, "WEBP", save_all=True, append_images=[CLEAR]),
        "bomb": webp_canvas(16_384, 16_384),
    }


def _heic() -> dict[str, bytes]:
    return {
        "plain": CORNERS,
        "10 bits": (KEPT / "corners-10-bit.heic").read_bytes(),
        "alpha": (KEPT / "corners-clear.heic").read_bytes(),
        "grey": (KEPT / "corners-grey.heic").read_bytes(),
        "tiles, turned": grid(3, 2, properties=[irot(1), imir(0)]),
        "EXIF": heic(exif=ENDLESS_EXIF, properties=[irot(3)]),
        "vast EXIF": heic(exif=VAST_EXIF),
        "sequence": heic(brands=(b"msf1", b"msf1", b"hevc", b"mif1", b"heic")) + box(b"moov", MOVIE_HEADER),
        "bomb": heic(size=(20_000, 20_000)),
        "bomb of tiles": grid(2, 2, size=(30_000, 30_000)),
    }


def _avif() -> dict[str, bytes]:
    image = noise(*SMALL)
    plain = encoded(image, "AVIF")
    return {
        "plain": plain,
        "10 bits": (KEPT / "corners-10-bit.avif").read_bytes(),
        "alpha, turned": encoded(CLEAR, "AVIF", exif=_turned()),
        "grey": encoded(image.convert("L"), "AVIF", subsampling="4:0:0"),
        "profile, vast EXIF": encoded(image, "AVIF", icc_profile=PROFILE, exif=VAST_EXIF),
        "sequence": encoded(image, "AVIF", save_all=True, append_images=[corners(*SMALL)]),
        "bomb": plain.replace(struct.pack(">II", *SMALL), struct.pack(">II", 16_000, 16_000)),
    }


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 7
    return exif.tobytes()


def _gif() -> dict[str, bytes]:
    palette = noise(*SMALL).quantize(64)
    return {
        "palette": encoded(palette, "GIF", interlace=False),
        "interlaced, clear": encoded(palette, "GIF", interlace=True, transparency=5),
        "grey, comment": encoded(noise(*SMALL).convert("L"), "GIF", comment=b"x" * 9000),
        "animated": encoded(palette, "GIF", save_all=True, append_images=[corners(*SMALL)], loop=0, disposal=2),
        "bomb": gif((65_535, 65_535), (0, 0, 1, 1)),
        "bomb of a frame": gif((1, 1), (0, 0, 65_535, 65_535), disposal=3),
    }
