"""All tables and all runs on one page: a single file that opens from a disk, works without scripts and asks no server.

A small script adds filters and buttons that copy commands. The page's own policy lets nothing else run or load: its
style sheet and its script are named there by their hashes.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UserError
from score_core.repro.catalogue import Block, Group, Line, Paper, Run
from score_core.repro.cite import BIBTEX
from score_core.repro.figures import light_weight
from score_core.repro.page_parts import (
    NOT_RUN,
    NOT_RUNNABLE,
    SIGNS,
    asset,
    attempts_table,
    badge,
    circumstances_table,
    css_class,
    figure,
    table,
)
from score_core.repro.schema import Experiment
from score_core.repro.site_filters import filter_form
from score_core.repro.site_rows import block_table, run_anchor

_MEANINGS = {
    "reproduced": "the measured value lies within the tolerance of the published one, or on its better side.",
    "deviates": "it does not.",
    "not comparable": "measured, but with other samples, another extractor or other data, at smoke scale, or against a "
    "value that nobody has verified.",
    "missing": "the run recorded no such metric.",
    "missing input": "the run was not started, because data, weights or a checkpoint were not there.",
    NOT_RUN: "there is a command for it, and no run of it on this page.",
    NOT_RUNNABLE: "no command can produce it; the line says why.",
}


def write_site(papers: Sequence[Paper], path: Path, *, utc: str, problems: Sequence[str] = ()) -> Path:
    """Write the page and return its path.

    Arguments:
        papers: from :func:`score_core.repro.catalogue.catalogue`.
        path: the file.
        utc: when it was written.
        problems: work folders that could not be read, with the reason.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {path.parent}: {error.strerror}. Choose another with -o.") from error
    atomic_write(path, page(papers, utc=utc, problems=problems).encode())
    return path


def page(papers: Sequence[Paper], *, utc: str, problems: Sequence[str] = ()) -> str:
    """The page as HTML; the arguments are those of :func:`write_site`."""
    style, script = asset("report.css") + asset("site.css"), asset("site.js")
    anchors: set[str] = set()
    sections = "\n".join(_paper(paper, number, anchors) for number, paper in enumerate(papers, start=1))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Score-based generative models: published and reproduced</title>
<style>{style}</style>
</head>
<body class="site">
<a class="skip" href="#results">Skip to the results</a>
<header>
<p class="id">Reproduction report</p>
<h1>Score-based generative models: published and reproduced</h1>
<p>{escape(_summary(papers))}</p>
<nav aria-label="Papers">
{_overview(papers)}
</nav>
{_legend()}
{_problems(problems)}
</header>
<main id="results" tabindex="-1">
{filter_form([(_title(paper), paper.lines) for paper in papers])}
{sections}
<p id="none" hidden>No value matches. <button type="button" id="reset-none">Reset the filters</button></p>
</main>
<footer><p>Written on {escape(utc)} by <code>repro report --all</code>.</p></footer>
<script>{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _title(paper: Paper) -> str:
    return paper.name.rpartition(" (")[0] or paper.name


def _venue(paper: Paper) -> str:
    return paper.name.rpartition(" (")[2].rstrip(")") if " (" in paper.name else ""


def _counts(lines: Sequence[Line]) -> Counter[str]:
    return Counter(line.status for line in lines)


def _summary(papers: Sequence[Paper]) -> str:
    lines = [line for paper in papers for line in paper.lines]
    published = sum(not isinstance(line.row, Experiment) for line in lines)
    experiments = {line.row.id for line in lines if isinstance(line.row, Experiment)}
    runs = sum(len(paper.runs) + len([b for g in paper.groups for b in g.blocks if b.run]) for paper in papers)
    counts = _counts(lines)
    return (
        f"{published} published values of {len(papers)} papers and {len(experiments)} experiments on embedded or "
        f"generated data, with what {runs} run{'s' * (runs != 1)} made of them: "
        f"{counts['reproduced']} reproduced, {counts['deviates']} deviate{'s' * (counts['deviates'] == 1)}."
    )


def _overview(papers: Sequence[Paper]) -> str:
    rows = []
    for number, paper in enumerate(papers, start=1):
        counts = _counts(paper.lines)
        link = f'<a href="#paper-{number}">{escape(_title(paper))}</a> <small>{escape(_venue(paper))}</small>'
        rows.append([link, f"{len(paper.lines)}", *(_count(counts[status], status) for status in SIGNS)])
    columns = ("Paper", "Values", *(status.capitalize() for status in SIGNS))
    return table("overview", "Values by verdict. Those of an experiment count once a run.", columns, rows)


def _count(count: int, status: str) -> str:
    return (
        f'<span class="count {css_class(status)}">{SIGNS[status]} {count}</span>'
        if count
        else '<span class="zero">0</span>'
    )


def _legend() -> str:
    entries = "".join(f"<dt>{badge(status)}</dt><dd>{escape(text)}</dd>" for status, text in _MEANINGS.items())
    return f"""<details class="legend"><summary>How to read this page</summary>
<dl>{entries}<dt><span class="unverified">unverified</span></dt><dd>the published value was recalled and not seen in the
paper; it is shown and never judged.</dd></dl>
<p>Reproduced values are given with one standard error where one was estimated. Tolerances are absolute. Each line opens
to the command that reruns it and to its provenance.</p></details>"""


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    entries = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f'<div class="problems"><p>Not on this page:</p><ul>{entries}</ul></div>'


def _paper(paper: Paper, number: int, anchors: set[str]) -> str:
    groups = "\n".join(_group(group, number, anchors) for group in paper.groups)
    runs = "\n".join(_run_article(run) for run in paper.runs)
    cite = ""
    if paper.name in BIBTEX:
        cite = f"""<details class="cite"><summary>BibTeX</summary>
<pre class="copy" tabindex="0">{escape(BIBTEX[paper.name])}</pre></details>"""
    return f"""<section class="paper" id="paper-{number}" aria-labelledby="title-{number}">
<h2 id="title-{number}">{escape(_title(paper))} <small>{escape(_venue(paper))}</small></h2>
{cite}
{groups}
{f'<section class="runs"><h3>Runs of published values</h3>{runs}</section>' if runs else ""}
</section>"""


def _group(group: Group, number: int, anchors: set[str]) -> str:
    """A table or an experiment; open where something was run."""
    lines = group.lines
    counts = _counts(lines)
    pills = " ".join(_pill(status, counts[status]) for status in SIGNS if counts[status])
    ran = any(line.comparison is not None for line in lines)
    experiment = group.experiment
    intro = "" if experiment is None else _introduction(experiment)
    kind = "" if experiment is None else "<small>Experiment</small> "
    blocks = "\n".join(_block(block, number, anchors) for block in group.blocks)
    return f"""<details class="group"{" open" if ran else ""}>
<summary><h3>{kind}{escape(group.title)}</h3> <span class="tally">{pills}</span> <span class="shown"></span></summary>
{intro}{blocks}
</details>"""


def _pill(status: str, count: int) -> str:
    sign = f'<span aria-hidden="true">{SIGNS[status]}</span>'
    return f'<span class="badge {css_class(status)}">{sign} {count} {status}</span>'


def _introduction(experiment: Experiment) -> str:
    return f"""<p>{escape(experiment.description)}</p>
<p>Data: {escape(experiment.dataset)}. Configuration: <code>{escape(experiment.config)}</code>.</p>
<pre class="copy" tabindex="0">repro run {escape(experiment.id)}</pre>
"""


def _block(block: Block, number: int, anchors: set[str]) -> str:
    if block.run is None:
        experiment = any(isinstance(line.row, Experiment) for line in block.lines)
        caption = "Not run yet." if experiment else "Published values and what was measured."
        return block_table(block, caption, number, anchors)
    values = block_table(block, f"Values of {block.run.workdir}.", number, anchors)
    return _run_article(block.run, values)


def _run_article(run: Run, values: str = "") -> str:
    """A run's values (HTML), pictures and provenance."""
    outcome, record = run.outcome, run.outcome.record
    about = [outcome.summary]
    if record.scale == "smoke":
        about.append("At smoke scale, which shows that everything works; its numbers mean nothing.")
    about += [
        f"{name}: {value}."
        for name, value in (("Framework", record.framework), ("Checkpoint", record.checkpoint))
        if value
    ]
    pictures = "".join(figure(light_weight(picture)) for picture in outcome.figures)
    link = "" if values else f'<p><a href="#{quote(record.id)}">The value it is for</a></p>'
    return f"""<article class="run" id="{escape(run_anchor(run))}" data-row="{escape(record.id)}">
<h4>Run <code>{escape(str(run.workdir))}</code> {badge(outcome.verdict)}</h4>
<p class="about">{escape(" ".join(about))}</p>
{link}{values}
{f'<div class="figures">{pictures}</div>' if pictures else ""}
<details class="provenance"><summary>Provenance of the run</summary>
{attempts_table(record.attempts)}
{circumstances_table(outcome.results)}
</details>
</article>"""
