"""What MkDocs does beside its plugins: formulas are drawn, so no page needs a script; CONTRIBUTING.md is a page."""

import re
from html import escape, unescape
from pathlib import Path
from typing import Any

import ziafont
import ziamath
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ziafont.config.svg2 = False  # glyphs as paths: with symbols the formulas of a page would share their ids
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
CODE = re.compile(r"<code>([^<]*)</code>")
SIZE = 100  # of the letters, in units of the drawing


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds CONTRIBUTING.md of the repository as a page; its links into docs/ become links between pages."""
    text = (Path(config.config_file_path).parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "contributing.md", content=text.replace("](docs/", "](")))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Replaces the formulas of a page by drawings in the size and colour of the text around them."""
    return CODE.sub(_with_whole_options, FORMULA.sub(_drawn, html))


def _with_whole_options(code: re.Match[str]) -> str:
    """No line ends between the dashes of an option and its name, where browsers would end it."""
    return "<code>" + re.sub(r"(?<!\S)--\w+", r'<span class="option">\g<0></span>', code[1]) + "</code>"


def _drawn(formula: re.Match[str]) -> str:
    inline, tex = formula[1] == "span", unescape(formula[2]).strip()
    drawing = ziamath.Latex(tex, size=SIZE, color="currentColor", inline=inline)
    svg = drawing.svg()
    box = re.search(r'width="([\d.]+)" height="([\d.]+)" viewBox="[-\d.]+ ([-\d.]+)', svg)
    assert box is not None
    width, height, top = map(float, box.groups())
    style = f"width:{width / SIZE:.3f}em;vertical-align:{-(height + top) / SIZE:.3f}em"
    svg = svg.replace("<svg ", f'<svg class="formula" role="img" aria-label="{escape(tex)}" style="{style}" ', 1)
    svg = re.sub(r' width="[\d.]+" height="[\d.]+"', "", svg, count=1)
    return svg if inline else f'<div class="formula">{svg}</div>'
