"""How one patient is built: the measures that a radiologist would take."""

from dataclasses import dataclass, replace

from featurecache.datasets.phantom.randomness import Part, stream

ADULT = 16
"""Years from which a patient is built as an adult."""

AP_MAGNIFICATION = 1.1
"""The heart lies in front: with the beam from the front it is further from the film, and larger."""

LYING_BREATH = 0.03
"""How much less deeply a patient breathes who is filmed in bed, as height of the diaphragm."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One person.

    Attributes:
        age: Years.
        sex: "F" or "M".
        seed: Decides everything else about the build.
    """

    age: int
    sex: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The measures of one chest, in heights of the film unless said otherwise.

    Attributes:
        half_width: Of the rib cage at its widest, inside the ribs.
        apex: Height of the lungs' tops (y, downwards).
        dome: Height of the right diaphragm; the left one is lower by ``dome_step``.
        dome_step: Left diaphragm below the right one.
        dome_depth: How far the lateral angle lies below the dome; 0 is a flat diaphragm.
        heart: Cardiothoracic ratio, the heart's width over the rib cage's.
        heart_tilt: Radians; 0 lies flat, more stands upright.
        vessels_width: Half-width of the upper mediastinum.
        knob: Radius of the aortic arch.
        rib_pitch: From one rib to the next.
        rib_drop: How much lower a posterior rib ends than it starts.
        bone: Density of bone, 1 in an adult of 40.
        depth: Of the trunk, 1 in a person of average weight.
        wall: Thickness of the lateral chest wall.
        breast: Of breast tissue over the lower lungs, as a share of the trunk's depth.
        air: Of the lungs' air, as a share of the trunk's depth.
        markings: Density of the vessels.
        scapulae: How far the shoulder blades lie over the lungs, 0 to 1.
        gas: Of gas in the stomach, 0 to 1.
        turn: Of the patient about the spine, as shift of the heart against it.
    """

    half_width: float
    apex: float
    dome: float
    dome_step: float
    dome_depth: float
    heart: float
    heart_tilt: float
    vessels_width: float
    knob: float
    rib_pitch: float
    rib_drop: float
    bone: float
    depth: float
    wall: float
    breast: float
    air: float
    markings: float
    scapulae: float
    gas: float
    turn: float


def build(patient: Patient) -> Anatomy:
    """The anatomy of a healthy person of that age and sex."""
    rng = stream(patient.seed, Part.BUILD)
    weight = rng.gamma(9.0, 1 / 9)
    child = patient.age < ADULT
    woman = patient.sex == "F" and not child
    age_over_40 = max(patient.age - 40, 0) / 40
    return Anatomy(
        half_width=rng.normal(0.30 if child else 0.345 if woman else 0.36, 0.012),
        apex=rng.normal(0.15, 0.015),
        dome=rng.normal(0.66 if child else 0.71, 0.02),
        dome_step=rng.normal(0.022, 0.008),
        dome_depth=rng.normal(0.10, 0.012),
        heart=rng.normal(0.48 if child else 0.44, 0.02) + 0.02 * age_over_40,
        heart_tilt=rng.normal(0.60, 0.07),
        vessels_width=rng.normal(0.062 if child else 0.054, 0.005),
        knob=rng.normal(0.03 if child else 0.042, 0.003) + 0.006 * age_over_40,
        rib_pitch=rng.normal(0.058 if child else 0.064, 0.002),
        rib_drop=rng.normal(0.09, 0.015),
        bone=rng.normal(1.25 if child else 1.0, 0.08) * (1 - 0.2 * age_over_40),
        depth=0.75 + 0.25 * weight,
        wall=(0.045 if child else 0.06) + 0.03 * weight,
        breast=rng.uniform(0.06, 0.2) if woman else 0.0,
        air=rng.normal(0.80, 0.03),
        markings=rng.normal(1.0, 0.12),
        scapulae=rng.uniform(0.0, 0.5),
        gas=rng.uniform(0.0, 1.0),
        turn=rng.normal(0.0, 0.008),
    )


def in_view(anatomy: Anatomy, view: str) -> Anatomy:
    """The anatomy as a film shows it: "PA" as it is, "AP" in bed and with a larger heart."""
    if view == "PA":
        return anatomy
    return replace(
        anatomy,
        heart=anatomy.heart * AP_MAGNIFICATION,
        vessels_width=anatomy.vessels_width * AP_MAGNIFICATION,
        dome=anatomy.dome - LYING_BREATH,
        scapulae=min(anatomy.scapulae + 0.5, 1.0),
    )
