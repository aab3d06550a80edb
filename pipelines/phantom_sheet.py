"""What do the films of the phantom look like?

    python pipelines/phantom_sheet.py phantom.png
    python pipelines/phantom_sheet.py docs/pictures/phantom.png --overview

A row per finding: one film without it, the same film with it at three severities, and two films
of the data set that show it and perhaps more; then a row of films of the data set without
findings. With --overview one film per finding, small enough for a README.
"""

import argparse
from itertools import islice
from pathlib import Path

from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom.anatomy import Patient
from featurecache.datasets.phantom.cohort import Film, cohort
from featurecache.datasets.phantom.radiograph import draw_film
from featurecache.images.contact_sheet import Captioned, contact_sheet

SEVERITIES = (0.0, 0.35, 0.7, 1.0)
OVERVIEW_SIZE = 160
OVERVIEW_COLUMNS = 6


def finding_rows(seed: int) -> list[list[Captioned]]:
    """The long sheet."""
    films = cohort(300, seed=seed)
    rows = []
    for number, label in enumerate(LABELS):
        patient = Patient(age=30 + 3 * number, sex="FM"[number % 2], seed=seed + number)
        row = [
            (
                f"{label} {severity:.2f}",
                draw_film(patient, {label: severity}, view="PA", seed=seed + number),
            )
            for severity in SEVERITIES
        ]
        rows.append(row + [_drawn(film) for film in islice(_showing(films, label), 2)])
    healthy = (film for film in films if not film.findings)
    return [*rows, [_drawn(film) for film in islice(healthy, len(rows[0]))]]


def overview_rows(seed: int) -> list[list[Captioned]]:
    """The short sheet: healthy films, then one of each finding."""
    shown: list[tuple[str, Patient, dict[str, float], str]] = [
        ("PA, woman", Patient(age=34, sex="F", seed=seed + 1), {}, "PA"),
        ("PA, man", Patient(age=58, sex="M", seed=seed + 2), {}, "PA"),
        ("PA, child", Patient(age=7, sex="F", seed=seed + 3), {}, "PA"),
        ("AP, in bed", Patient(age=71, sex="M", seed=seed + 4), {}, "AP"),
    ]
    for number, label in enumerate(LABELS):
        patient = Patient(age=30 + 3 * number, sex="FM"[number % 2], seed=seed + number)
        shown.append((label.replace("_", " "), patient, {label: 0.75}, "PA"))
    films = [
        (caption, draw_film(patient, findings, view=view, seed=seed + n, size=OVERVIEW_SIZE))
        for n, (caption, patient, findings, view) in enumerate(shown)
    ]
    starts = range(0, len(films), OVERVIEW_COLUMNS)
    return [films[start : start + OVERVIEW_COLUMNS] for start in starts]


def _showing(films: list[Film], label: str) -> list[Film]:
    return [film for film in films if label in film.findings]


def _drawn(film: Film) -> Captioned:
    findings = ", ".join(f"{name[:8]} {value:.2f}" for name, value in film.findings.items())
    pixels = draw_film(film.patient, film.findings, view=film.view, seed=film.seed)
    return f"{film.view} {film.patient.age} {film.patient.sex} {findings}", pixels


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
