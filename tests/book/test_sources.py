"""The page Sources: every source that a chapter names by authors and year is one of docs/book/sources.toml."""

import pytest

from docs.extension.citations import citations, sources, unknown, users
from tests.book.test_chapters import CHAPTERS, ROOT, prose

FILE = ROOT / "docs" / "book" / "sources.toml"
KNOWN = sources(FILE)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_source_of_a_chapter_is_on_the_page(chapter):
    assert not unknown(prose(chapter), KNOWN), f"add them to {FILE.relative_to(ROOT)}"


def test_a_source_says_what_it_is():
    for source in KNOWN:
        assert citations(f"({source['names'][0]})") == {source["names"][0]} or "tutorial" in source["names"][0]
        assert set(source) == {"names", "title", "where", "says"}
        assert all(source.values())
    names = [name for source in KNOWN for name in source["names"]]
    assert len(set(names)) == len(names)


def test_citations_are_found_in_every_form():
    text = """
# - AEVB (Kingma & Welling 2014), and Kingma, Rezende, Mohamed &
#   Welling (2014); Griewank and Walther, "Evaluating Derivatives" (2008), and Feng et al. (2021). In 2015 nothing.
"""
    assert citations(text) == {"Kingma & Welling 2014", "Kingma, Rezende, Mohamed & Welling 2014",
                               "Griewank & Walther 2008", "Feng et al. 2021"}  # fmt: skip
    assert unknown(text, [{"names": ["Kingma & Welling 2014", "AEVB"]}]) == {
        "Kingma, Rezende, Mohamed & Welling 2014", "Griewank & Walther 2008", "Feng et al. 2021"}  # fmt: skip


def test_a_source_is_not_taken_for_another_one():
    vae, m2 = {"names": ["Kingma & Welling 2014", "AEVB"]}, {"names": ["Kingma, Rezende, Mohamed & Welling 2014"]}
    texts = {"a": "AEVB, section 2", "b": "Kingma, Rezende, Mohamed & Welling (2014)", "c": "Kingma & Welling (2019)",
             "d": "of\n# Kingma &\n# Welling (2014)"}
    assert users(vae, texts) == ["a", "d"]
    assert users(m2, texts) == ["b"]
