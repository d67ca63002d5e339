"""Pages that stand at the root of the repository are pages of the site too."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_page_markdown(markdown: str, page, **_) -> str:
    """The text of a page, with links as they are from the folder docs."""
    name = PAGES.get(page.file.src_uri)
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](") if name else markdown
