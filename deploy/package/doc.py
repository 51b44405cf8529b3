#!/usr/bin/env python3
"""Lays out what the packages bring to read, /usr/share/doc/turnhook: pages, schema, examples.

    deploy/package/doc.py FOLDER

The pages lie elsewhere than in the repository, and not all that they link to comes along: links lead to where it is, and
those to what is not there become the name of a file of turnhook's sources.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What is laid out, and where; a folder with all that is in it.
LAID_OUT = {
    "README.md": "README.md",
    "SECURITY.md": "SECURITY.md",
    "deploy/CONFIGURING.md": "CONFIGURING.md",
    "deploy/OPERATING.md": "OPERATING.md",
    "deploy/PREPAID.md": "PREPAID.md",
    "deploy/SEVERAL-MACHINES.md": "SEVERAL-MACHINES.md",
    "crates/reducer/RELAYED.md": "RELAYED.md",
    "schema": "schema",
    "crates/turnhook/src/config/default.toml": "examples/default.toml",
    "deploy/compose.cluster.yaml": "examples/compose.cluster.yaml",
    "deploy/grafana/turnhook.json": "examples/turnhook.json",
    "deploy/kubernetes.monitoring.yaml": "examples/kubernetes.monitoring.yaml",
    "deploy/kubernetes.yaml": "examples/kubernetes.yaml",
    "deploy/prometheus/turnhook.rules.yaml": "examples/turnhook.rules.yaml",
    "deploy/redis.conf": "examples/redis.conf",
    "deploy/turnserver.conf": "examples/turnserver.conf",
    **{f"examples/billing/{page.name}": f"examples/billing/{page.name}" for page in (ROOT / "examples/billing").glob("*.md")},
    "examples/receivers": "examples/receivers",
    "examples/turnhook.toml": "examples/turnhook.toml",
}
LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "node_modules", "target", "Cargo.lock")
LINK = re.compile(r"\[([^][]+)\]\(([^()#\s]+)(#[^()\s]*)?\)")


def place(source: str) -> str | None:
    """Where a file or folder of the sources is laid out, if it is."""
    for laid_out, where in LAID_OUT.items():
        if source == laid_out or source.startswith(laid_out + "/"):
            return where + source[len(laid_out):]
    return None


def page(source: str, where: str, text: str) -> str:
    """A page of the sources, as it is laid out."""

    def link(found: re.Match[str]) -> str:
        name, target, anchor = found[1], found[2], found[3] or ""
        if ":" in target:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = place(target)
        if there:
            return f"[{name}]({posixpath.relpath(there, posixpath.dirname(where) or '.')}{anchor})"
        if not (ROOT / target).exists():
            raise SystemExit(f"{source} links to {target}, which does not exist")
        return name if target in name else f"{name} (`{target}` of turnhook's sources)"

    return LINK.sub(link, text)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    for source, where in LAID_OUT.items():
        (folder / where).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / where, ignore=LEFT_BEHIND, dirs_exist_ok=True)
        else:
            shutil.copyfile(ROOT / source, folder / where)
    for laid_out in sorted(folder.rglob("*.md")):
        where = laid_out.relative_to(folder).as_posix()
        source = next(s + where[len(w):] for s, w in LAID_OUT.items() if where == w or where.startswith(w + "/"))
        laid_out.write_text(page(source, where, laid_out.read_text(encoding="utf-8")), encoding="utf-8")


main()
