"""Bones: spine, ribs, clavicles, scapulae and humeri."""

import numpy as np

from featurecache.datasets.phantom.outline import Outline
from featurecache.datasets.phantom.shapes import Field, gaussian, smoothstep, sphere_depth


def skeleton(outline: Outline) -> Field:
    """Return the (H, W) depth of bone at average bone density; a rib is about 0.15."""
    return spine(outline) + ribs(outline) + shoulders(outline)


def spine(outline: Outline) -> Field:
    """Return the vertebrae with disc spaces, pedicles and spinous processes."""
    x, y = outline.beside, outline.plane.y
    column = 0.031 + 0.010 * y
    # Lower vertebrae are taller.
    phase = 0.5 + 0.5 * np.cos(2 * np.pi * y * (21 - 4 * y))
    body = smoothstep(column - x, 0.020) * (0.23 - 0.08 * phase * phase)
    pedicle = 0.07 * gaussian(x - 0.62 * column, 0.006) * (1 - phase)
    spinous = 0.06 * gaussian(x, 0.006) * phase
    return body + pedicle + spinous


def ribs(outline: Outline) -> Field:
    """Return the ribs: posterior parts descend to the side, anterior parts are fainter and wider.

    All pairs are computed at once, because the distance from a rib is periodic in the rib spacing.
    """
    anatomy, x, y = outline.anatomy, outline.beside, outline.plane.y
    across = np.clip(x / (outline.cage + 0.012), 0, 1)
    within = smoothstep(outline.cage + 0.022 - x, 0.012)
    span = smoothstep(y - anatomy.apex + 0.01, 0.03) * smoothstep(anatomy.dome + 0.06 - y, 0.22)
    below_first = y - anatomy.apex + 0.02
    back = below_first + 0.07 * across * (1 - across) - anatomy.rib_drop * across * across
    front = below_first - anatomy.rib_drop - 0.19 * (1 - across)

    def band(distance: Field, half_width: float) -> Field:
        phase = distance / anatomy.rib_pitch
        off = (phase - np.floor(phase + 0.5)) * (anatomy.rib_pitch / half_width)
        # Bone is a tube, so its walls attenuate more than its middle.
        return np.sqrt(sphere_depth(off)) * (0.65 + 0.35 * off * off)

    behind = 0.21 * band(back, 0.0155) * smoothstep(x - 0.035, 0.02)
    before = 0.13 * band(front, 0.019) * smoothstep(across - 0.42, 0.15)
    # At the side, where a rib turns to the front, the ray runs along it.
    rim = 0.14 * gaussian(x - outline.cage - 0.009, 0.007)
    return within * span * (behind + before + rim)


def shoulders(outline: Outline) -> Field:
    """Return the clavicles, scapulae and humeri."""
    anatomy, x, y = outline.anatomy, outline.beside, outline.plane.y
    waist = outline.waist
    # Clavicles: a flat S from the sternum up to the shoulder.
    along = np.clip((x - 0.035) / (waist - 0.02), 0, 1)
    rise = anatomy.apex + 0.055 - 0.085 * along + 0.16 * along * (1 - along) * (0.5 - along)
    ends = smoothstep(x - 0.035, 0.015) * smoothstep(waist + 0.02 - x, 0.02)
    clavicle = 0.26 * ends * np.sqrt(sphere_depth((y - rise) / 0.0130))
    # Scapulae: only the medial border and the ridge below the joint are visible.
    border = x - waist + 0.01 + 0.075 * anatomy.scapulae - 0.30 * (0.24 - y)
    reach = smoothstep(y - 0.15, 0.06) * smoothstep(0.38 - y, 0.08)
    scapula = reach * smoothstep(border, 0.012) * (0.05 + 0.10 * gaussian(border - 0.012, 0.009))
    scapula = scapula * smoothstep(waist + 0.05 - x, 0.05)
    head = 0.26 * np.sqrt(sphere_depth(np.hypot(x - waist - 0.065, y - 0.16) / 0.040))
    shaft = (
        0.22
        * smoothstep(y - 0.17, 0.05)
        * np.sqrt(sphere_depth((x - waist - 0.08 - 0.05 * y) / 0.024))
    )
    return clavicle + scapula + np.maximum(head, shaft)
