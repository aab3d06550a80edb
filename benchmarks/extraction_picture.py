"""Bar chart of the table printed by benchmarks/extraction.py.

    python benchmarks/extraction_picture.py TABLE docs/pictures/speed.png

TABLE is the output of benchmarks/extraction.py. Each bar is the throughput of a method relative to
featurecache in the same run; the line is the upper bound of the CPU.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

METHODS = ("ours", "CLIP_benchmark", "notebook", "clip-retrieval", "loop")
NAMES = ("featurecache", "CLIP_benchmark", "usual notebook", "clip-retrieval", "one at a time")
COLORS = ("#0b5cad", "#8fb8de", "#b8b8b8", "#d2c3a5", "#dcdcdc")


def main() -> None:
    """Read the table and plot it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    plot(parse_table(arguments.table.read_text())).savefig(arguments.out, dpi=150)


def parse_table(text: str) -> list[dict[str, str]]:
    """Return the rows of a Markdown table as dictionaries."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if "|" in line]
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def plot(rows: list[dict[str, str]]) -> Figure:
    """Plot a group of bars for each encoder and kind of image."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(METHODS)
    for index, (method, name, color) in enumerate(zip(METHODS, NAMES, COLORS, strict=True)):
        positions, ratios = [], []
        for position, row in enumerate(rows):
            if row[method] != "–":
                positions.append(position + (index - (len(METHODS) - 1) / 2) * width)
                ratios.append(float(row[method]) / float(row["ours"]))
        axes.bar(positions, ratios, width, color=color, label=name)
    for position, row in enumerate(rows):
        bound = float(row["bound"]) / float(row["ours"])
        axes.hlines(bound, position - 0.4, position + 0.4, color="#222222", linewidth=1)
    axes.set_xticks(range(len(rows)), [f"{row['model']}\n{row['images']}" for row in rows])
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.set_ylabel("images per second,\nrelative to featurecache")
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
