"""The site: built strictly, with no connection to anywhere, and no page of it loads anything from elsewhere."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT

mkdocs = pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")

LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]*)\"|<link\b[^>]*\bhref=\"([^\"]*)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of the site by their paths."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")

    def refuse(*_: Any) -> None:
        raise AssertionError("the site is built from local files")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(socket.socket, "connect", refuse)
        build(load_config("mkdocs.yml", strict=True, site_dir=str(folder)))
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}


def test_every_page_is_there(site: dict[str, str]) -> None:
    written = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {str(path) for path in written} <= set(site)


def test_nothing_is_loaded_from_elsewhere(site: dict[str, str]) -> None:
    loaded = {found for text in site.values() for pair in LOADED.findall(text) for found in pair if found}
    assert {"style.css", "the-loop.svg"} <= {Path(found).name for found in loaded}
    assert [found for found in loaded if re.match(r"(\w+:)?//", found)] == []


def test_every_figure_is_shown(site: dict[str, str]) -> None:
    shown = {Path(found).name for text in site.values() for found in re.findall(r'<img[^>]* src="([^"]*)"', text)}
    assert {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".png", ".svg")} <= shown


def test_formulas_are_drawn(site: dict[str, str]) -> None:
    written = sum(len(re.findall(r"(?<!\$)\$[^$\n]+\$(?!\$)|\$\$[^$]+\$\$", path.read_text(encoding="utf-8")))
                  for path in (ROOT / "docs").glob("*.md"))  # fmt: skip
    drawn = [found for text in site.values() for found in re.findall(r'<svg class="formula".*?</svg>', text, re.S)]
    assert len(drawn) == written > 5
    assert all(found.count("<path") for found in drawn)
    assert not any("arithmatex" in text for text in site.values())


@pytest.mark.parametrize("name", ["gipo.objectives.GIPO", "datamodules.online.OnlineDataModule",
                                  "deploy.runtime.policy.OnnxPolicy", "robots.base.Robot"])  # fmt: skip
def test_the_reference_has_the_public_names(site: dict[str, str], name: str) -> None:
    assert f'id="{name}"' in site[f"reference/{name.split('.')[0]}.html"]
