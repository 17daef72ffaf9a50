"""Rewrites the expected findings of rejected/: `python tests/programs/update.py`. Read the changes before you keep them."""

from programs import REJECTED, expected_file, printed, read


def update():
    """The names of the files whose expectation changed."""
    changed = []
    for path in REJECTED:
        target = expected_file(path)
        text = printed(read(path))
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            changed.append(path.stem)
    return changed


if __name__ == "__main__":
    for name in update():
        print(name)
