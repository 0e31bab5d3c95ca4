"""Pictures of chapters: a blank one is refused, and what a page gets is the picture with its text."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tinyvae.lessons.book import drawn, embedded, show
from tinyvae.lessons.book.pictures import frame, html
from tinyvae.pictures.page import new_figure


def test_a_plain_program_prints_the_text(capsys):
    figure = new_figure(2, 1)
    figure.add_subplot().plot([0, 1])
    show(figure, "a line that rises")
    assert capsys.readouterr().out == "Picture: a line that rises\n"


def test_a_blank_picture_is_refused():
    with pytest.raises(ValueError, match="found a blank picture where 'a line' should be"):
        show(new_figure(2, 1), "a line")
    with pytest.raises(ValueError, match="found a blank picture"):
        drawn(lambda path: Image.new("L", (40, 40), 90).save(path), text="a grey square")


def test_a_page_within_a_page_is_the_page(tmp_path, capsys):
    page = '<title>a "b" & c</title><script>1 < 2</script>'

    class Frames(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "iframe":
                found.append(dict(attrs))

    found: list[dict] = []
    Frames().feed(frame(page, "a <map>", 300))
    assert [(each["srcdoc"], each["title"]) for each in found] == [(page, "a <map>")]
    (tmp_path / "page.html").write_text(page)
    embedded(tmp_path / "page.html", "a map")
    assert capsys.readouterr().out == "Page: a map\n"


@pytest.mark.parametrize("form", ["png", "gif"])
def test_a_page_gets_the_picture_and_its_text(form):
    buffer = io.BytesIO()
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(buffer, form)
    page = html(buffer.getvalue(), 'a "diagonal" < line', form)
    assert 'alt="a &quot;diagonal&quot; &lt; line"' in page
    assert base64.b64decode(page.partition("base64,")[2].partition('"')[0]) == buffer.getvalue()
    assert ("<details>" in page) == (form == "gif")  # what moves is started by the reader
