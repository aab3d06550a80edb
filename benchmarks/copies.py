"""What the audit can find: changed copies of real films, and films that are no copies.

    python benchmarks/copies.py --data DATA [--films 150] [--model tiny]

DATA is the folder of the folders ``nih`` and ``kermany``. Films drawn at random are re-encoded,
resized, made brighter or darker, shifted or cropped. Of each kind it prints the least likeness to
the original, how many copies are missed, and for how many the original is among the five nearest
films of its data set, by the films' spectra and by the model's embeddings. Then the greatest
likeness of two different files: of one patient in ``nih``, and of any neighbours in ``kermany``.
"""

import argparse
import io
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from featurecache.audit.image_similarity import IDENTICAL, likeness, miniature, spectrum
from featurecache.audit.near_duplicates import NEIGHBOURS
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.images.decode import decode_image, read_image
from featurecache.io.fingerprint import sha256_of_file
from featurecache.metrics.similarity import Directions, batch_nearest, normalize_rows

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def re_encoded(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    """As JPEG of quality 30 to 79."""
    buffer = io.BytesIO()
    film.save(buffer, format="JPEG", quality=int(rng.integers(30, 80)))
    return decode_image(buffer.getvalue())


def resized(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By up to 8 %, in height and width apart."""
    width, height = film.size
    across, down = rng.uniform(0.92, 1.08, 2)
    return film.resize((round(width * across), round(height * down)), Image.Resampling.BILINEAR)


def brightened(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gamma 0.7 to 1.4, then contrast 0.7 to 1.2 and up to 20 grey levels more or less."""
    grey = np.asarray(film) / 255
    changed = grey ** rng.uniform(0.7, 1.4) * 255 * rng.uniform(0.7, 1.2) + rng.uniform(-20, 20)
    return Image.fromarray(np.clip(changed, 0, 255).astype(np.uint8))


def shifted(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By up to 5 % of a side each way, on black."""
    width, height = film.size
    across, down = rng.uniform(-0.05, 0.05, 2) * (width, height)
    return film.transform(film.size, Image.Transform.AFFINE, (1, 0, across, 0, 1, down))


def cropped(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By up to 5 % of a side on each side."""
    width, height = film.size
    left, top, right, bottom = rng.uniform(0, 0.05, 4) * (width, height, width, height)
    return film.crop((round(left), round(top), round(width - right), round(height - bottom)))


CHANGES: tuple[Change, ...] = (re_encoded, resized, brightened, shifted, cropped)


def main() -> None:
    """Change films, look for them, print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--films", type=int, default=150)
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model, precision="fp32")
    nih = sorted((arguments.data / "nih" / "images").glob("*.png"))
    kermany = sorted((arguments.data / "kermany").rglob("*.jpeg"))
    for name, paths in (("nih", nih), ("kermany", kermany)):
        measure_copies(name, paths, encoder, number=arguments.films)
    patients: defaultdict[str, list[Path]] = defaultdict(list)
    for path in nih:
        patients[path.name[:8]].append(path)
    small = {path: miniature(read_image(path)) for path in nih}
    pairs = [
        value
        for films in patients.values()
        for row, one in enumerate(films)
        for value in likeness(small[one], (small[other] for other in films[:row]))
    ]
    print(f"nih: {len(pairs)} pairs of one patient, the most alike {max(pairs):.3f}")
    measure_neighbours(kermany)


def measure_copies(name: str, paths: list[Path], encoder: Encoder, *, number: int) -> None:
    """Change some films in every way and look for the originals."""
    films = [read_image(path) for path in paths]
    small = [miniature(film) for film in films]
    spectra = np.stack([spectrum(film) for film in small])
    embeddings = embed(encoder, films)
    rng = np.random.default_rng(0)
    rows = rng.choice(len(films), number, replace=False)
    for change in CHANGES:
        copies = [change(films[row].convert("L"), rng) for row in rows]
        tiny = [miniature(copy) for copy in copies]
        values = [next(likeness(small[row], [copy])) for row, copy in zip(rows, tiny, strict=True)]
        by_spectrum, _ = batch_nearest(
            np.stack([spectrum(copy) for copy in tiny]), spectra, top=NEIGHBOURS
        )
        by_embedding, _ = batch_nearest(embed(encoder, copies), embeddings, top=NEIGHBOURS)
        found = [
            int((near == rows[:, None]).any(axis=1).sum()) for near in (by_spectrum, by_embedding)
        ]
        print(
            f"{name}, {change.__name__}: least likeness {min(values):.3f}, "
            f"{sum(value < IDENTICAL for value in values)} of {number} missed; among the "
            f"{NEIGHBOURS} nearest by spectrum {found[0]}, by {encoder.name} {found[1]}"
        )


def measure_neighbours(paths: list[Path]) -> None:
    """The greatest likeness of two different files, of each film and its nearest by spectrum."""
    small = [miniature(read_image(path)) for path in paths]
    hashes = [sha256_of_file(path) for path in paths]
    spectra = np.stack([spectrum(film) for film in small])
    near, _ = batch_nearest(spectra, spectra, top=NEIGHBOURS + 1)
    found: Mapping[float, tuple[Path, Path]] = {
        value: (paths[row], paths[other])
        for row, others in enumerate(near.tolist())
        for other, value in zip(
            others, likeness(small[row], (small[other] for other in others)), strict=True
        )
        if hashes[row] != hashes[other]
    }
    print("kermany: the most alike of different files")
    for value in sorted(found, reverse=True)[:6]:
        one, other = found[value]
        print(f"  {value:.3f} {one.name} {other.name}")


def embed(encoder: Encoder, films: list[Image.Image]) -> Directions:
    """Embeddings at unit length."""
    batches = [films[start : start + 32] for start in range(0, len(films), 32)]
    return normalize_rows(
        np.concatenate(
            [encoder.embed_pixels(np.stack(list(map(encoder.preprocess, b)))) for b in batches]
        )
    )


if __name__ == "__main__":
    main()
