"""Citations: every paper of a table row has one, with its facts."""

import pytest

from score_core.errors import UsageError
from score_core.repro.cite import BIBTEX, bibtex
from score_core.repro.tables import load_all

FACTS = {
    "1907.05600": ("Song, Yang and Ermon, Stefano", "2019"),
    "2006.09011": ("Song, Yang and Ermon, Stefano", "2020"),
    "2011.13456": ("Kumar, Abhishek and Ermon, Stefano", "2021"),
    "2101.09258": ("Song, Yang and Durkan, Conor and Murray, Iain and Ermon, Stefano", "2021"),
    "2206.08265": (
        "Lu, Cheng and Zheng, Kaiwen and Bao, Fan and Chen, Jianfei and Li, Chongxuan and Zhu, Jun",
        "2022",
    ),
    "2106.02808": ("Huang, Chin-Wei and Lim, Jae Hyun and Courville, Aaron", "2021"),
}


@pytest.mark.parametrize("eprint", FACTS)
def test_authors_and_year_of_each_paper(eprint: str):
    (entry,) = [entry for entry in BIBTEX.values() if f"{{{eprint}}}" in entry]
    authors, year = FACTS[eprint]
    assert authors in entry
    assert f"year      = {{{year}}}" in entry
    assert entry.count("{") == entry.count("}")


@pytest.mark.parametrize("paper", BIBTEX)
def test_the_name_of_a_paper_is_its_title_and_year(paper: str):
    title, venue = paper.removesuffix(")").rsplit(" (", 1)
    entry = bibtex(paper)
    assert f"title     = {{{title}}}," in entry.replace("{ODE}s", "ODEs")
    assert f"{{{venue.split()[1]}}}" in entry


def test_keys_are_unique_and_every_row_can_be_cited():
    assert len({entry.split(",")[0] for entry in BIBTEX.values()}) == len(BIBTEX) == len(FACTS)
    for row in load_all():
        assert bibtex(row.paper)


def test_an_unknown_paper_is_an_error():
    with pytest.raises(UsageError, match="No citation is known for 'x'"):
        bibtex("x")
