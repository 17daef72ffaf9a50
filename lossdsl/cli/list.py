"""List the standard library: papers and building blocks, with the first line of what each is."""

from __future__ import annotations

import argparse
import sys

from lossdsl.cli.common import Failed, add_json, paint, print_json, table


def configure(parser: argparse.ArgumentParser) -> None:
    """Flags of `lossdsl list`."""
    parser.add_argument("--tag", help="only entries with this tag, as in --tag contrastive")
    parser.add_argument("--family", help="only entries of this family (file), as in --family preference")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the entries."""
    from lossdsl.checker.catalog import catalog

    entries = list(catalog())
    tags = sorted({t for e in entries for t in e.tags})
    families = list(dict.fromkeys(e.family for e in entries))
    if arguments.tag is not None and arguments.tag not in tags:
        raise Failed.of_choice("tag", arguments.tag, tags, f"tags are {', '.join(tags)}")
    if arguments.family is not None and arguments.family not in families:
        raise Failed.of_choice("family", arguments.family, families, f"families are {', '.join(families)}")
    chosen = [
        e
        for e in entries
        if (arguments.tag is None or arguments.tag in e.tags)
        and (arguments.family is None or arguments.family == e.family)
    ]
    if arguments.json:
        fields = ("name", "summary", "family", "file", "provenance")
        print_json([{**{f: getattr(e, f) for f in fields}, "tags": list(e.tags)} for e in chosen])
        return 0
    width = max((len(e.name) for e in chosen), default=0)
    blocks: list[str] = []
    for family in families:
        rows = [(f"{e.name:<{width}}", e.summary) for e in chosen if e.family == family]
        if rows:
            blocks.append("\n".join([paint(family, "bold", sys.stdout), *table(rows, indent="  ")]))
    sys.stdout.write("\n\n".join(blocks) + "\n" if blocks else "nothing has this tag in this family\n")
    return 0
