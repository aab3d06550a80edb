"""Studies from a table through a cache to the images that a search finds."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import featurecache as fc


def test_studies_are_carried_by_shards_merged_caches_and_searches(run, tmp_path: Path):
    rng = np.random.default_rng(0)
    lines = ["path,who,exam"]
    for number in range(8):
        pixels = rng.integers(0, 255, (32, 32)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        exam = "" if number == 7 else f"exam {number // 2}"
        lines.append(f"{number}.png,patient {number // 4},{exam}")
    Path("t.csv").write_text("\n".join(lines))
    options = ["--data-root", "t.csv", "--patient-column", "who", "--study-column", "exam"]
    for shard in ("1/2", "2/2"):
        assert run("extract", *options, "--shard", shard).code == 0
    shards = [f"cache/t/tiny.{number}-of-2.h5" for number in (1, 2)]
    assert run("cache", "merge", *shards).code == 0
    cache = fc.open_cache("cache/t/tiny.h5")
    exams = [f"exam {number // 2}" for number in range(7)]
    assert cache.studies.tolist() == [*exams, ""]
    studies = cache.to_pandas()["study"]
    assert studies[:7].tolist() == exams
    assert pd.isna(studies[7])
    assert run("cache", "verify", "cache/t/tiny.h5").code == 0
    assert run("cache", "info", "cache/t/tiny.h5", "--json").json["studies"] == 4
    hits = run("retrieve", "--image", "0.png", "--top", 3, "--json").json["images"]
    assert all(
        hit["study"] == dict(zip(cache.ids, cache.studies, strict=True))[hit["id"]] for hit in hits
    )
