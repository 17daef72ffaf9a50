"""Coverage-guided fuzzing of the parser, the formatter and the checker: `make fuzz`.

Any text must be answered with findings, never with another exception, and what is well formed must stay so when formatted.
Options are libFuzzer's, such as `-max_total_time=60` or a folder with a corpus; the golden programs are the first corpus.
"""

import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("the fuzzer needs atheris, which is not installed: pip install -e '.[fuzz]'")

with atheris.instrument_imports(include=["lossdsl"]):
    import lossdsl
    import lossdsl.checker.program

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"


def one(data):
    """One text: check it, print what is found, format it twice."""
    text = data.decode("utf-8", "replace")
    for finding in lossdsl.check(text):
        assert finding.code
        assert str(finding)
    try:
        once = lossdsl.format(text)
    except lossdsl.LossError:
        return
    assert lossdsl.format(once) == once


def main():
    with tempfile.TemporaryDirectory() as corpus:
        for number, path in enumerate(sorted(PROGRAMS.glob("*/*.loss"))):
            Path(corpus, str(number)).write_bytes(path.read_bytes())
        given = [*sys.argv, corpus, "-timeout=20", "-max_len=2000"]
        atheris.Setup(given, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
