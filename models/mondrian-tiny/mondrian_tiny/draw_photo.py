"""Family `photo`: stand-ins for photographs, with a light, a cast and a tone, and no object."""

from typing import Any, Final

import numpy as np
from PIL import Image

from mondrian_tiny.facts import KINDS, Facts
from mondrian_tiny.light import brightness_of, contrast_of, light_of, luminance, model_pixels
from mondrian_tiny.wear import canvas_size, worn

Plane = np.ndarray[Any, np.dtype[np.float32]]

_SIDES: Final = ("left", "right", "top", "bottom")
_SIDES_OF_HORIZON: Final = ("left", "right", "top")
_EVEN_SHARE: Final = 0.35
_MEANS: Final = {"dark": (0.16, 0.28), "medium": (0.43, 0.55), "bright": (0.7, 0.8)}
_SPREADS: Final = {"low": (0.075, 0.1), "high": (0.17, 0.22)}
_CASTS: Final = {"warm": (1.22, 1.0, 0.64), "neutral": (1.0, 1.0, 1.0), "cool": (0.66, 1.0, 1.3)}
_DOMINANT: Final = {"warm": "orange", "neutral": "grey", "cool": "blue"}
_SHADOW: Final = {"left": "right", "right": "left"}


def draw(rng: np.random.Generator) -> tuple[Image.Image, Facts] | None:
    """Draw one picture and say what is true of it; None where a fact would be doubtful."""
    kind = str(rng.choice(KINDS))
    light = _choose_light(kind, rng)
    brightness, contrast = str(rng.choice(list(_MEANS))), str(rng.choice(list(_SPREADS)))
    temperature = str(rng.choice(list(_CASTS)))
    width, height = canvas_size(rng)
    width, height = width * 2 // 3, height * 2 // 3
    field = _field(kind, light, width, height, rng)
    field = _toned(field, rng.uniform(*_MEANS[brightness]), rng.uniform(*_SPREADS[contrast]))
    image = worn(_tinted(field, kind, temperature, rng), rng, grain=2.5)
    seen = luminance(model_pixels(image))
    measured = (brightness_of(seen), contrast_of(seen), light_of(seen))
    if measured != (brightness, contrast, light):
        return None
    facts = Facts(
        family="photo",
        dominant=_DOMINANT[temperature],
        brightness=brightness,
        light=light,
        temperature=temperature,
        contrast=contrast,
        balance=_SHADOW.get(light, "even"),
        kind=kind,
    )
    return image, facts


def _choose_light(kind: str, rng: np.random.Generator) -> str:
    """Choose a side; a gradient and a horizon always have one, and no land shines from below."""
    if kind == "horizon":
        return str(rng.choice(_SIDES_OF_HORIZON))
    even = kind != "gradient" and rng.random() < _EVEN_SHARE
    return "even" if even else str(rng.choice(_SIDES))


def _field(kind: str, light: str, width: int, height: int, rng: np.random.Generator) -> Plane:
    """Join the light and the structure into one plane of levels, mean 0 and spread 1."""
    v, u = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    ramp = {"left": -u, "right": u, "top": -v, "bottom": v, "even": np.zeros_like(u)}[light]
    ramp = np.sign(ramp) * np.abs(ramp) ** rng.uniform(0.8, 1.3)
    if kind == "gradient":
        return _unit(ramp)
    structure = _unit(_detrended(_STRUCTURES[kind](u, v, rng), u, v))
    return _unit(_unit(ramp) * rng.uniform(1.3, 1.7) + structure)


def _unit(plane: Plane) -> Plane:
    plane = plane - plane.mean()
    return plane / max(float(plane.std()), 1e-6)


def _detrended(plane: Plane, u: Plane, v: Plane) -> Plane:
    """Take the slope out of a structure, so that only the light gives a direction."""
    for axis in (u, v):
        plane = plane - axis * float((plane * axis).mean() / (axis * axis).mean())
    return plane


def _blobs(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    plane = np.zeros_like(u)
    for _ in range(int(rng.integers(4, 8))):
        x, y = rng.uniform(-0.85, 0.85, 2)
        radius, level = rng.uniform(0.18, 0.34), rng.uniform(0.8, 1.2) * rng.choice((-1, 1))
        plane += level * np.exp(-((u - x) ** 2 + (v - y) ** 2) / radius**2)
    return plane


def _horizon(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Draw a smooth sky over a land of dark ridges; the land begins with a dark edge."""
    edge = rng.uniform(-0.25, 0.25) + 0.05 * np.sin(u * rng.uniform(2, 5) + rng.uniform(0, 6))
    land = (v > edge).astype(np.float32)
    ridges = np.sin((v - edge) * rng.uniform(18, 26)) * 0.5 - 0.4
    edge_line = -2.5 * np.exp(-(((v - edge) / 0.05) ** 2))
    return land * ridges + edge_line


def _texture(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.16, 0.3)
    wave = np.sin((u * np.cos(angle) + v * np.sin(angle)) * 2 * np.pi / period)
    return np.tanh(wave * rng.uniform(0.8, 3))


def _noise(u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    grains = int(rng.integers(44, 70))
    coarse = Image.fromarray(rng.standard_normal((grains, grains), dtype=np.float32))
    return np.asarray(coarse.resize((u.shape[1], u.shape[0]), Image.Resampling.BILINEAR))


_STRUCTURES: Final = {"blobs": _blobs, "horizon": _horizon, "texture": _texture, "noise": _noise}


def _toned(field: Plane, mean: float, spread: float) -> Plane:
    """Scale levels to a mean and a spread; clipping moves both, so approach them in steps."""
    gain, offset = spread, mean
    for _ in range(4):
        levels = np.clip(field * gain + offset, 0.01, 0.99)
        gain *= spread / max(float(levels.std()), 1e-3)
        offset += mean - float(levels.mean())
    return np.clip(field * gain + offset, 0.01, 0.99)


def _tinted(field: Plane, kind: str, temperature: str, rng: np.random.Generator) -> Image.Image:
    """Give levels the cast, with slow variations of hue so that no picture is of one ink."""
    height, width = field.shape
    small = Image.fromarray(rng.standard_normal((3, 3), dtype=np.float32))
    drift = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) * 0.035
    if kind == "horizon":
        drift = drift + np.linspace(-0.05, 0.05, height, dtype=np.float32)[:, None]
    drift = drift - drift.mean()
    cast = np.array(_CASTS[temperature], dtype=np.float32)
    cast = cast ** np.float32(rng.uniform(0.85, 1.1))
    cast /= cast @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    pixels = field[..., None] * cast * np.stack([1 + drift, np.ones_like(drift), 1 - drift], -1)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
