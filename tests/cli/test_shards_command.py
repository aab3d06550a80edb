"""Shards of an extraction on the command line, and their merging."""


def test_shards_are_extracted_apart_and_merged(run, tiny_clip, extract_options):
    for number in (1, 2):
        part = run(
            "extract", "--model", tiny_clip, *extract_options, "--shard", f"{number}/2", "--json"
        )
        assert part.code == 0, part.stderr
        assert part.json[0]["path"] == f"cache/films/tiny-clip.{number}-of-2.h5"
        assert part.json[0]["done"] == 30
    merged = run(
        "cache",
        "merge",
        "cache/films/tiny-clip.1-of-2.h5",
        "cache/films/tiny-clip.2-of-2.h5",
        "--json",
    )
    assert merged.code == 0, merged.stderr
    assert merged.json == {"path": "cache/films/tiny-clip.h5", "images": 60}
    again = run("extract", "--model", tiny_clip, *extract_options, "--json")
    assert (again.json[0]["done"], again.json[0]["reused"]) == (0, 60)


def test_a_missing_shard_and_a_malformed_option_are_told(run, tiny_clip, extract_options):
    made = run("extract", "--model", tiny_clip, *extract_options, "--shard", "1/3")
    assert made.code == 0, made.stderr
    file = "cache/films/tiny-clip.1-of-3.h5"
    refused = run("cache", "merge", file, file)
    assert refused.code == 2
    assert "--shard 2/3" in " ".join(refused.stderr.split())
    for text, words in (("2", "give I/N"), ("0/3", "from 1 to N"), ("a/b", "give I/N")):
        refused = run("extract", "--model", tiny_clip, *extract_options, "--shard", text)
        assert refused.code == 2
        assert words in " ".join(refused.stderr.split())
