"""Draw a contact sheet of phantom images.

    python pipelines/phantom_sheet.py phantom.png
    python pipelines/phantom_sheet.py docs/pictures/phantom.png --overview

One row per finding: an image without it, the same image with it at three severities, and two
images of the data set that have it; then a row of images of the data set without findings. With
--overview, one image per finding, small enough for a README.
"""

import argparse
from itertools import islice
from pathlib import Path

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import Patient
from featurecache.datasets.phantom.cohort import Radiograph, cohort
from featurecache.datasets.phantom.radiograph import draw_radiograph
from featurecache.images.contact_sheet import Captioned, contact_sheet

SEVERITIES = (0.0, 0.35, 0.7, 1.0)
OVERVIEW_SIZE = 160
OVERVIEW_COLUMNS = 6


def finding_rows(seed: int) -> list[list[Captioned]]:
    """Return the rows of the full sheet."""
    images = cohort(300, seed=seed)
    rows = []
    for number, label in enumerate(LABELS):
        patient = Patient(age=30 + 3 * number, sex="FM"[number % 2], seed=seed + number)
        row = [
            (
                f"{label} {severity:.2f}",
                draw_radiograph(patient, {label: severity}, view="PA", seed=seed + number),
            )
            for severity in SEVERITIES
        ]
        rows.append(row + [_captioned(image) for image in islice(_with_finding(images, label), 2)])
    healthy = (image for image in images if not image.findings)
    return [*rows, [_captioned(image) for image in islice(healthy, len(rows[0]))]]


def overview_rows(seed: int) -> list[list[Captioned]]:
    """Return the rows of the overview: healthy images, then one of each finding."""
    examples: list[tuple[str, Patient, dict[str, float], str]] = [
        ("PA, woman", Patient(age=34, sex="F", seed=seed + 1), {}, "PA"),
        ("PA, man", Patient(age=58, sex="M", seed=seed + 2), {}, "PA"),
        ("PA, child", Patient(age=7, sex="F", seed=seed + 3), {}, "PA"),
        ("AP, in bed", Patient(age=71, sex="M", seed=seed + 4), {}, "AP"),
    ]
    for number, label in enumerate(LABELS):
        patient = Patient(age=30 + 3 * number, sex="FM"[number % 2], seed=seed + number)
        examples.append((label.replace("_", " "), patient, {label: 0.75}, "PA"))
    images = [
        (caption, draw_radiograph(patient, findings, view=view, seed=seed + n, size=OVERVIEW_SIZE))
        for n, (caption, patient, findings, view) in enumerate(examples)
    ]
    starts = range(0, len(images), OVERVIEW_COLUMNS)
    return [images[start : start + OVERVIEW_COLUMNS] for start in starts]


def _with_finding(images: list[Radiograph], label: str) -> list[Radiograph]:
    return [image for image in images if label in image.findings]


def _captioned(image: Radiograph) -> Captioned:
    findings = ", ".join(f"{name[:8]} {value:.2f}" for name, value in image.findings.items())
    pixels = draw_radiograph(image.patient, image.findings, view=image.view, seed=image.seed)
    return f"{image.view} {image.patient.age} {image.patient.sex} {findings}", pixels


def main() -> None:
    """Draw a sheet and save it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--overview", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = (overview_rows if arguments.overview else finding_rows)(arguments.seed)
    contact_sheet(rows).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
