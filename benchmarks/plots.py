"""One plot for each subject: a panel for each line of the report, with a bar for each peer and its quartiles."""

import matplotlib
import peers

matplotlib.use("svg")
# Text stays text in the SVG, and the same numbers make the same file.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "execnet_c", "font.size": 8, "font.family": "sans-serif"})

from matplotlib import pyplot  # noqa: E402

COLUMNS = 3
WIDTH, BAR, HEAD, TITLE = 10.0, 0.2, 0.75, 0.2  # inches
OURS, FLOOR, OTHERS = "#1f6f8b", "#b9b9b9", "#d98c4a"
WIDE_RANGE = 15  # if the largest number is more than so many times the smallest, the scale is logarithmic


def rows_of(work):
    """Rows of panels: (title, text of the axis, {peer: figures}) for each line that has numbers of more than one peer."""
    panels = []
    for line in work["lines"].values():
        some = {peer: found["figures"] for peer, found in line["peers"].items() if found["figures"]}
        if len(some) > 1:
            better = "more is better" if line["more_is_better"] else "less is better"
            unit = f"{line['unit']}, " if line["unit"] else ""
            panels.append((line["title"].strip(), unit + better, some))
    return [panels[at : at + COLUMNS] for at in range(0, len(panels), COLUMNS)]


def colour(peer):
    if peer == peers.OURS:
        return OURS
    return OTHERS if peer in NAMED else FLOOR


NAMED = {*peers.CONVERSATIONS, *peers.CALLS, *peers.SERIALIZERS, *peers.TAGGERS}


def draw(works, path):
    """Draw the plot of these works. Each work begins a new row, under its title. A plot without panels is not written."""
    rows = [(work["title"] if first else "", row) for work in works for first, row in _first_marked(rows_of(work))]
    if not rows:
        return
    heights = [max(len(some) for _, _, some in row) * BAR + HEAD + TITLE * bool(title) for title, row in rows]
    figure, axes = pyplot.subplots(
        len(rows), COLUMNS, figsize=(WIDTH, sum(heights)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for (heading, row), panels in zip(rows, axes):
        for (title, axis, some), panel in zip(row, panels):
            # The empty line makes room for the heading, which is as wide as the whole row.
            panel_of(panel, f" \n{title}" if heading else title, axis, some)
        if heading:
            panels[0].annotate(
                heading, (0, 1), (0, 18), "axes fraction", textcoords="offset points", weight="bold"
            ).set_in_layout(False)
        for panel in panels[len(row) :]:
            panel.axis("off")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _first_marked(rows):
    return [(at == 0, row) for at, row in enumerate(rows)]


def panel_of(panel, title, axis, some):
    names = list(reversed(some))
    medians = [some[name]["median"] for name in names]
    errors = [
        [median - some[name]["spread"][0] for name, median in zip(names, medians)],
        [some[name]["spread"][1] - median for name, median in zip(names, medians)],
    ]
    # Of few values, a rounding error may put the median outside of the quartiles.
    errors = [[max(0.0, error) for error in side] for side in errors]
    panel.barh(names, medians, xerr=errors, color=[colour(name) for name in names], error_kw={"lw": 0.8})
    if min(medians) > 0 and max(medians) / min(medians) > WIDE_RANGE:
        panel.set_xscale("log")
        panel.set_xlim(left=min(medians) / 3)
    panel.set_title(title, fontsize=8, loc="left")
    panel.set_xlabel(axis, fontsize=7, loc="left", labelpad=1)
    panel.minorticks_off()  # they would make the file twice as large
    panel.spines[["top", "right"]].set_visible(False)
