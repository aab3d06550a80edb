"""Spine, ribs, collar bones, shoulder blades and upper arms."""

import numpy as np

from featurecache.datasets.phantom.outline import Outline
from featurecache.datasets.phantom.shapes import Field, ball, bump, smooth


def skeleton(outline: Outline) -> Field:
    """(H, W) depth of bone in a person of average bone density; a rib is about 0.15."""
    return spine(outline) + ribs(outline) + shoulders(outline)


def spine(outline: Outline) -> Field:
    """Vertebrae, with gaps for the discs, their pedicles, and a thorn in the middle."""
    x, y = outline.beside, outline.plane.y
    column = 0.031 + 0.010 * y
    # Vertebrae get taller going down.
    beat = 0.5 + 0.5 * np.cos(2 * np.pi * y * (21 - 4 * y))
    body = smooth(column - x, 0.020) * (0.23 - 0.08 * beat * beat)
    pedicle = 0.07 * bump(x - 0.62 * column, 0.006) * (1 - beat)
    thorn = 0.06 * bump(x, 0.006) * beat
    return body + pedicle + thorn


def ribs(outline: Outline) -> Field:
    """Each pair leaves the spine, falls to the side, and comes back in front, fainter and wider.

    All pairs at once: the distance from the curve of one rib, in pitches, repeats at every rib.
    """
    anatomy, x, y = outline.anatomy, outline.beside, outline.plane.y
    across = np.clip(x / (outline.cage + 0.012), 0, 1)
    within = smooth(outline.cage + 0.022 - x, 0.012)
    span = smooth(y - anatomy.apex + 0.01, 0.03) * smooth(anatomy.dome + 0.06 - y, 0.22)
    below_first = y - anatomy.apex + 0.02
    back = below_first + 0.07 * across * (1 - across) - anatomy.rib_drop * across * across
    front = below_first - anatomy.rib_drop - 0.19 * (1 - across)

    def band(distance: Field, half_width: float) -> Field:
        phase = distance / anatomy.rib_pitch
        off = (phase - np.floor(phase + 0.5)) * (anatomy.rib_pitch / half_width)
        # Bone is a tube: its walls show more than its middle.
        return np.sqrt(ball(off)) * (0.65 + 0.35 * off * off)

    behind = 0.21 * band(back, 0.0155) * smooth(x - 0.035, 0.02)
    before = 0.13 * band(front, 0.019) * smooth(across - 0.42, 0.15)
    # Where a rib turns from back to front the ray runs along it.
    rim = 0.14 * bump(x - outline.cage - 0.009, 0.007)
    return within * span * (behind + before + rim)


def shoulders(outline: Outline) -> Field:
    """Collar bones, shoulder blades and upper arms."""
    anatomy, x, y = outline.anatomy, outline.beside, outline.plane.y
    waist = outline.waist
    # Collar bones: a flat S from the breastbone up to the shoulder.
    along = np.clip((x - 0.035) / (waist - 0.02), 0, 1)
    rise = anatomy.apex + 0.055 - 0.085 * along + 0.16 * along * (1 - along) * (0.5 - along)
    ends = smooth(x - 0.035, 0.015) * smooth(waist + 0.02 - x, 0.02)
    collar = 0.26 * ends * np.sqrt(ball((y - rise) / 0.0130))
    # Shoulder blades: only the inner border and the crest under the joint stand out.
    border = x - waist + 0.01 + 0.075 * anatomy.scapulae - 0.30 * (0.24 - y)
    reach = smooth(y - 0.15, 0.06) * smooth(0.38 - y, 0.08)
    blade = reach * smooth(border, 0.012) * (0.05 + 0.10 * bump(border - 0.012, 0.009))
    blade = blade * smooth(waist + 0.05 - x, 0.05)
    head = 0.26 * np.sqrt(ball(np.hypot(x - waist - 0.065, y - 0.16) / 0.040))
    shaft = 0.22 * smooth(y - 0.17, 0.05) * np.sqrt(ball((x - waist - 0.08 - 0.05 * y) / 0.024))
    return collar + blade + np.maximum(head, shaft)
