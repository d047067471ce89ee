"""The form that narrows down the page over all runs; it is shown by the page's script, which does the work."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from score_core.repro.catalogue import Line
from score_core.repro.page_parts import SIGNS

_RUNNABLE = {
    "yes": "yes",
    "no": "no: the line says why",
    "compare": "no: baseline of other code",
    "external": "no: needs judges or services",
}
_SEEN = {"seen": "seen in its source", "memory": "unverified"}


def filter_form(papers: Sequence[tuple[str, Sequence[Line]]]) -> str:
    """The form, with how many lines each choice has.

    Arguments:
        papers: titles and lines, in the order of the page.
    """
    lines = [line for _, of_paper in papers for line in of_paper]
    metrics = Counter(line.metric for line in lines)
    statuses = Counter(line.status for line in lines)
    runnable = Counter(line.runnable for line in lines)
    seen = Counter("memory" if line.unverified else "seen" for line in lines)
    selects = [
        _select("paper", "Paper", [(str(n), title, len(own)) for n, (title, own) in enumerate(papers, start=1)]),
        _select("metric", "Metric", [(name, name, count) for name, count in metrics.most_common()]),
        _select("verdict", "Verdict", [(name, name, statuses[name]) for name in SIGNS if statuses[name]]),
        _select(
            "runnable", "Runnable", [(key, text, runnable[key]) for key, text in _RUNNABLE.items() if runnable[key]]
        ),
        _select("seen", "Published value", [(key, text, seen[key]) for key, text in _SEEN.items() if seen[key]]),
    ]
    return f"""<form id="filter" role="search" aria-label="Filter the values" hidden>
<div class="field search"><label for="filter-text">Search</label>
<input type="search" id="filter-text" name="text" autocomplete="off" spellcheck="false"></div>
{"".join(selects)}
<div class="buttons"><button type="reset">Reset</button> <button type="button" id="open-all">Open all</button>
<button type="button" id="close-all">Close all</button></div>
<p class="field status"><output id="status" for="filter-text">{len(lines)} of {len(lines)} values</output></p>
</form>"""


def _select(name: str, label: str, choices: Sequence[tuple[str, str, int]]) -> str:
    options = "".join(
        f'<option value="{escape(value)}" data-text="{escape(text)}">{escape(text)} ({count})</option>'
        for value, text, count in choices
    )
    return f"""<div class="field"><label for="filter-{name}">{label}</label>
<select id="filter-{name}" name="{name}"><option value="" data-text="all">all</option>{options}</select></div>
"""
