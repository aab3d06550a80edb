"""Anatomy of a patient: the measures that determine a chest radiograph."""

from dataclasses import dataclass, replace

from featurecache.datasets.phantom.randomness import Stream, random_stream

ADULT_AGE = 16
"""Age in years from which a patient has the anatomy of an adult."""

AP_MAGNIFICATION = 1.1
"""Magnification of the heart, which is farther from the detector in an AP view."""

AP_DIAPHRAGM_RISE = 0.03
"""Elevation of the diaphragm in bed, where patients inhale less deeply."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A patient.

    Attributes:
        age: Age in years.
        sex: "F" or "M".
        seed: Seed of the anatomy.
    """

    age: int
    sex: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Measures of one chest, in units of the image height unless noted otherwise.

    Attributes:
        half_width: Half of the maximum inner width of the rib cage.
        apex: y of the lung apices (y grows downwards).
        dome: y of the right hemidiaphragm.
        dome_step: How much lower the left hemidiaphragm is.
        dome_depth: How much lower the costophrenic angle is than the dome; 0 is a flat diaphragm.
        heart: Cardiothoracic ratio: width of the heart over that of the rib cage.
        heart_tilt: Tilt of the heart in radians; 0 is horizontal.
        vessels_width: Half-width of the upper mediastinum.
        knob: Radius of the aortic arch.
        rib_pitch: Distance between ribs.
        rib_drop: How much lower a posterior rib ends than it starts.
        bone: Density of bone; 1 at the age of 40.
        depth: Depth of the trunk; 1 at average weight.
        wall: Thickness of the lateral chest wall.
        breast: Depth of breast tissue over the lower lungs, relative to the trunk.
        air: Depth of air in the lungs, relative to the trunk.
        markings: Density of the vessels.
        scapulae: How far the scapulae overlap the lungs, 0 to 1.
        gas: Amount of gas in the stomach, 0 to 1.
        turn: Rotation about the spine, as a shift of the heart.
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


def build_anatomy(patient: Patient) -> Anatomy:
    """Return the anatomy of a healthy patient of this age and sex."""
    rng = random_stream(patient.seed, Stream.BUILD)
    weight = rng.gamma(9.0, 1 / 9)
    child = patient.age < ADULT_AGE
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


def anatomy_in_view(anatomy: Anatomy, view: str) -> Anatomy:
    """Return the anatomy as it appears in a view: in "AP", in bed and with a magnified heart."""
    if view == "PA":
        return anatomy
    return replace(
        anatomy,
        heart=anatomy.heart * AP_MAGNIFICATION,
        vessels_width=anatomy.vessels_width * AP_MAGNIFICATION,
        dome=anatomy.dome - AP_DIAPHRAGM_RISE,
        scapulae=min(anatomy.scapulae + 0.5, 1.0),
    )
