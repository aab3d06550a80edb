"""The table of benchmarks/extraction.py as a picture.

python benchmarks/extraction_picture.py TABLE docs/speed.png

TABLE is what benchmarks/extraction.py printed. Each bar is a method's images a second over those of
featurecache in the same run; the line is what the cores allow.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

METHODS = ("ours", "CLIP_benchmark", "notebook", "clip-retrieval", "loop")
NAMES = ("featurecache", "CLIP_benchmark", "usual notebook", "clip-retrieval", "one at a time")
COLOURS = ("#0b5cad", "#8fb8de", "#b8b8b8", "#d2c3a5", "#dcdcdc")


def main() -> None:
    """Read the table and draw it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    draw(rows_of(arguments.table.read_text())).savefig(arguments.out, dpi=150)


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of a Markdown table, by the names of its columns."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if "|" in line]
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def draw(rows: list[dict[str, str]]) -> Figure:
    """A group of bars for each encoder and kind of film."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(METHODS)
    for number, (method, name, colour) in enumerate(zip(METHODS, NAMES, COLOURS, strict=True)):
        places, ratios = [], []
        for place, row in enumerate(rows):
            if row[method] != "–":
                places.append(place + (number - (len(METHODS) - 1) / 2) * width)
                ratios.append(float(row[method]) / float(row["ours"]))
        axes.bar(places, ratios, width, color=colour, label=name)
    for place, row in enumerate(rows):
        bound = float(row["bound"]) / float(row["ours"])
        axes.hlines(bound, place - 0.4, place + 0.4, color="#222222", linewidth=1)
    axes.set_xticks(range(len(rows)), [f"{row['model']}\n{row['films']}" for row in rows])
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.set_ylabel("images a second,\nrelative to featurecache")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        ncols=len(METHODS),
        loc="upper center",
        bbox_to_anchor=(0.5, 1.2),
        frameon=False,
        fontsize=8,
    )
    return figure


if __name__ == "__main__":
    main()
