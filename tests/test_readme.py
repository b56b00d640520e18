"""Commands, paths, modules and links in the documents exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "benchmarks/README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "examples/README.md",
    "examples/routing.md",
)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
README = "".join(TEXTS.values())
HOME = "https://github.com/perceivers-live/perceivers-live"


def test_every_command_shown_is_a_command() -> None:
    from perceivers_live.cli import main

    shown = set(re.findall(r"(?:perceivers-live|\./run) ([a-z]+)\b", README))
    assert shown
    assert shown <= {*main.commands, "test"}


def test_every_path_shown_exists() -> None:
    shown = re.findall(
        r"`((?:benchmarks|docs|engine|examples|fuzz|layouts|perceivers_live|tests|tools|trainer)/[\w/.-]*)[ `]", README
    )
    assert len(shown) > 20
    for path in shown:
        assert (ROOT / path).exists(), path


def test_every_module_shown_exists() -> None:
    shown = re.findall(r"python -m ((?:benchmarks|fuzz|perceivers_live|tests|tools)[\w.]*)", README)
    assert len(shown) > 10
    for module in shown:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_every_link_into_the_repository_exists() -> None:
    for name, text in TEXTS.items():
        for link in re.findall(r"\]\(([^)]+)\)", text):
            if link.startswith(f"{HOME}/blob/main/"):
                target = ROOT / link.removeprefix(f"{HOME}/blob/main/").partition("#")[0]
            elif link.startswith(("http", "#")):
                continue
            else:
                target = (ROOT / name).parent / link.partition("#")[0]
            assert target.exists(), f"{name}: {link}"


def test_links_of_the_readme_are_absolute() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXTS["README.md"])
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_architecture_names_every_folder_of_the_daemon() -> None:
    folders = {path.parent.name for path in (ROOT / "perceivers_live").glob("*/__init__.py")} - {"music"}
    assert [name for name in sorted(folders) if not re.search(rf"\b{name}\b", TEXTS["docs/architecture.md"])] == []


def test_the_homepage_is_in_pyproject_toml() -> None:
    assert f'Homepage = "{HOME}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
