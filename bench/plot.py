"""The plot: tokens per second and time to first token of every contender, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.figures import Figures, median, merge

_COUNTS = (1, 8, 32, 64)
_PANELS = (
    ("tokens/s", "tokens/s in all"),
    ("first p50 s", "time to first token, p50, s"),
    ("first p99 s", "time to first token, p99, s"),
)


def draw(figures: Mapping[str, Mapping[str, Sequence[Figures]]], path: Path) -> bool:
    """Write the plot as SVG; return whether there was anything to draw, and matplotlib to draw with."""
    counts = [count for count in _COUNTS if f"streams-{count}" in figures]
    if not counts:
        return False
    try:
        import matplotlib as mpl  # noqa: PLC0415 # of the group `bench`, which not every environment has
    except ImportError:
        return False
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "mondrian"
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot  # noqa: PLC0415 # after the back end is chosen

    contenders = list(dict.fromkeys(who for count in counts for who in figures[f"streams-{count}"]))
    figure, axes = pyplot.subplots(1, len(_PANELS), figsize=(14, 4.8), layout="constrained")
    width = 0.8 / len(contenders)
    for (name, title), axis in zip(_PANELS, axes, strict=True):
        for place, who in enumerate(contenders):
            rounds = [merge(figures[f"streams-{count}"].get(who, ())).get(name, []) for count in counts]
            middles = [median(values) for values in rounds]
            spread = [
                [middle - min(values, default=middle) for middle, values in zip(middles, rounds, strict=True)],
                [max(values, default=middle) - middle for middle, values in zip(middles, rounds, strict=True)],
            ]
            at = [index + (place - (len(contenders) - 1) / 2) * width for index in range(len(counts))]
            axis.bar(at, middles, width, yerr=spread, label=who, error_kw={"elinewidth": 0.8})
        axis.set_xticks(range(len(counts)), [str(count) for count in counts])
        axis.set_xlabel("image analyses at once")
        axis.set_title(title)
        axis.grid(axis="y", linewidth=0.4)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True
