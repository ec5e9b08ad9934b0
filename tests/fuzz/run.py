"""Coverage-guided fuzzing of one target: `python -m tests.fuzz.run TARGET [option of libFuzzer]…`.

What is worth keeping, and what failed, is kept in build/fuzz/TARGET, where the next run goes on.
"""

from __future__ import annotations

import importlib
import sys
from hashlib import sha1
from pathlib import Path

import atheris

HTTP2 = "datastore.shim.transport.http2"
INSTRUMENTED = {
    "frames": [HTTP2],
    "hpack": [f"{HTTP2}.hpack", f"{HTTP2}.huffman", "hpack"],
    "shapes": ["datastore.shim.rpc.shapes", "datastore.shim.mvcc.wire"],
}
"""By target the code whose coverage guides it."""
ROOT = Path(__file__).parents[2]


def main() -> None:
    """Fuzz until something fails or time is up."""
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED[name]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    corpus = ROOT / "build" / "fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.SEEDS:
        (corpus / sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    usual = [
        f"-artifact_prefix={corpus}/", "-len_control=0", "-max_len=2048", "-rss_limit_mb=512",
        "-timeout=60",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *usual, *options, str(corpus)], target.attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
