"""Sensitivity and specificity of the near-duplicate search, on altered copies of real images.

    python benchmarks/copies.py --data DATA [--n-images 150] [--model tiny]

DATA holds the folders ``nih`` and ``kermany``. Randomly chosen images are re-encoded, resized, made
brighter or darker, shifted or cropped. For each change, the script prints the lowest similarity to
the original, the number of copies that are missed, and for how many the original is among the five
nearest images of its data set, by spectrum and by embedding. Then it prints the highest similarity
of different files: of one patient in ``nih``, and of nearest neighbors in ``kermany``.
"""

import argparse
import io
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurecache.audit.image_similarity import MIN_SIMILARITY, miniature, similarities, spectrum
from featurecache.audit.near_duplicates import NEIGHBORS
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.images.decode import decode_image, read_image
from featurecache.io.fingerprint import sha256_of_file
from featurecache.metrics.similarity import Directions, normalize_rows

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def re_encoded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Re-encode as JPEG of quality 30 to 79."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=int(rng.integers(30, 80)))
    return decode_image(buffer.getvalue())


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Resize by up to 8 %, height and width separately."""
    width, height = image.size
    across, down = rng.uniform(0.92, 1.08, 2)
    return image.resize((round(width * across), round(height * down)), Image.Resampling.BILINEAR)


def brightened(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change gamma (0.7 to 1.4), contrast (0.7 to 1.2) and brightness (up to 20 gray levels)."""
    gray = np.asarray(image) / 255
    changed = gray ** rng.uniform(0.7, 1.4) * 255 * rng.uniform(0.7, 1.2) + rng.uniform(-20, 20)
    return Image.fromarray(np.clip(changed, 0, 255).astype(np.uint8))


def shifted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shift by up to 5 % of a side, on black."""
    width, height = image.size
    across, down = rng.uniform(-0.05, 0.05, 2) * (width, height)
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, across, 0, 1, down))


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop up to 5 % on each side."""
    width, height = image.size
    left, top, right, bottom = rng.uniform(0, 0.05, 4) * (width, height, width, height)
    return image.crop((round(left), round(top), round(width - right), round(height - bottom)))


CHANGES: tuple[Change, ...] = (re_encoded, resized, brightened, shifted, cropped)


def main() -> None:
    """Search for altered copies and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n-images", type=int, default=150)
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model, precision="exact")
    nih = sorted((arguments.data / "nih" / "images").glob("*.png"))
    kermany = sorted((arguments.data / "kermany").rglob("*.jpeg"))
    for name, paths in (("nih", nih), ("kermany", kermany)):
        measure_copies(name, paths, encoder, number=arguments.n_images)
    patients: defaultdict[str, list[Path]] = defaultdict(list)
    for path in nih:
        patients[path.name[:8]].append(path)
    small = {path: miniature(read_image(path)) for path in nih}
    pairs = [
        value
        for images in patients.values()
        for row, path in enumerate(images)
        for value in similarities(small[path], (small[other] for other in images[:row]))
    ]
    print(f"nih: {len(pairs)} pairs of one patient, maximum similarity {max(pairs):.3f}")
    measure_neighbors(kermany)


def measure_copies(name: str, paths: list[Path], encoder: Encoder, *, number: int) -> None:
    """Alter some images in every way and search for the originals."""
    images = [read_image(path) for path in paths]
    small = [miniature(image) for image in images]
    spectra = np.stack([spectrum(image) for image in small])
    embeddings = embed(encoder, images)
    rng = np.random.default_rng(0)
    rows = rng.choice(len(images), number, replace=False)
    for change in CHANGES:
        copies = [change(images[row].convert("L"), rng) for row in rows]
        tiny = [miniature(copy) for copy in copies]
        values = [
            next(similarities(small[row], [copy])) for row, copy in zip(rows, tiny, strict=True)
        ]
        by_spectrum = nearest(np.stack([spectrum(copy) for copy in tiny]), spectra)
        by_embedding = nearest(embed(encoder, copies), embeddings)
        n_found = [
            int((near == rows[:, None]).any(axis=1).sum()) for near in (by_spectrum, by_embedding)
        ]
        print(
            f"{name}, {change.__name__}: minimum similarity {min(values):.3f}, "
            f"{sum(value < MIN_SIMILARITY for value in values)} of {number} missed; among the "
            f"{NEIGHBORS} nearest by spectrum {n_found[0]}, by {encoder.name} {n_found[1]}"
        )


def measure_neighbors(paths: list[Path]) -> None:
    """Print the most similar pairs of different files among nearest neighbors by spectrum."""
    small = [miniature(read_image(path)) for path in paths]
    hashes = [sha256_of_file(path) for path in paths]
    spectra = np.stack([spectrum(image) for image in small])
    near = nearest(spectra, spectra, top=NEIGHBORS + 1)
    pairs: Mapping[float, tuple[Path, Path]] = {
        value: (paths[row], paths[other])
        for row, others in enumerate(near.tolist())
        for other, value in zip(
            others, similarities(small[row], (small[other] for other in others)), strict=True
        )
        if hashes[row] != hashes[other]
    }
    print("kermany: most similar pairs of different files")
    for value in sorted(pairs, reverse=True)[:6]:
        first, second = pairs[value]
        print(f"  {value:.3f} {first.name} {second.name}")


def nearest(queries: Directions, gallery: Directions, *, top: int = NEIGHBORS) -> NDArray[np.intp]:
    """Return the rows of the gallery with the highest cosines, (Q, top)."""
    return np.argsort(-(queries @ gallery.T), axis=1)[:, :top]


def embed(encoder: Encoder, images: list[Image.Image]) -> Directions:
    """Return L2-normalized embeddings."""
    batches = [images[start : start + 32] for start in range(0, len(images), 32)]
    return normalize_rows(
        np.concatenate(
            [encoder.embed_pixels(np.stack(list(map(encoder.preprocess, b)))) for b in batches]
        )
    )


if __name__ == "__main__":
    main()
