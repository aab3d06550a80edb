"""The commands that extract and merge shards."""


def test_shards_are_extracted_and_merged(run, tiny_clip, extract_options):
    for number in (1, 2):
        shard = run(
            "extract", "--model", tiny_clip, *extract_options, "--shard", f"{number}/2", "--json"
        )
        assert shard.code == 0, shard.stderr
        assert shard.json[0]["path"] == f"cache/xrays/tiny-clip.{number}-of-2.h5"
        assert shard.json[0]["done"] == 30
    merged = run(
        "cache",
        "merge",
        "cache/xrays/tiny-clip.1-of-2.h5",
        "cache/xrays/tiny-clip.2-of-2.h5",
        "--json",
    )
    assert merged.code == 0, merged.stderr
    assert merged.json == {"path": "cache/xrays/tiny-clip.h5", "images": 60}
    again = run("extract", "--model", tiny_clip, *extract_options, "--json")
    assert (again.json[0]["done"], again.json[0]["reused"]) == (0, 60)


def test_missing_shard_and_malformed_shard_are_refused(run, tiny_clip, extract_options):
    outcome = run("extract", "--model", tiny_clip, *extract_options, "--shard", "1/3")
    assert outcome.code == 0, outcome.stderr
    file = "cache/xrays/tiny-clip.1-of-3.h5"
    refused = run("cache", "merge", file, file)
    assert refused.code == 2
    assert "extract shard 2/3" in " ".join(refused.stderr.split())
    for text, words in (("2", "give I/N"), ("0/3", "from 1 to N"), ("a/b", "give I/N")):
        refused = run("extract", "--model", tiny_clip, *extract_options, "--shard", text)
        assert refused.code == 2
        assert words in " ".join(refused.stderr.split())
