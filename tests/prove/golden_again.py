"""Golden of all 2**32 inputs once more, against the hashes of proved.json, without the second evaluation.

    python -m tests.prove.golden_again erf gelu              each function's 256 chunks
    python -m tests.prove.golden_again erf --slice 3/64      as `refnet prove`

proved.json has what both evaluations gave; there is only one correct rounding, so golden by another float64
evaluation has the same hashes if it is right. It prints how many elements float64 left open. Exit code 1 if
any chunk's hash is another.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time

import numpy as np

from refnet.exact.correct_rounding import RefineCount
from refnet.exact.engine import DecideOrRefine
from refnet.kernels.engine import Fast
from refnet.ops.sigmoid import exact_sigmoid
from refnet.prove.prove import BLOCK, CHUNKS, FUNCTIONS, OPS, _canonical, recorded


def chunk(function: str, index: int) -> tuple[str, int]:
    """The hash of golden's results, and how many were open."""
    size, digest, count = (1 << 32) // CHUNKS, hashlib.sha256(), RefineCount()
    exact = DecideOrRefine(Fast(1), count)
    for start in range(index * size, (index + 1) * size, BLOCK):
        x = np.arange(start, start + BLOCK, dtype=np.uint32).view(np.float32)
        golden = OPS[function].golden(x, exact=exact) if function in OPS else exact_sigmoid("", x, exact)
        digest.update(_canonical(golden).astype("<u4", copy=False).data)
    return digest.hexdigest(), sum(found for _, found in count.by_op.values())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="golden_again")
    parser.add_argument("functions", nargs="+", choices=[f for f in FUNCTIONS if recorded(f)])
    parser.add_argument("--slice", default="1/1", help="which part, such as 3/64")
    a = parser.parse_args(arguments)
    part, of = map(int, a.slice.split("/"))
    wrong = 0
    for function in a.functions:
        begin, opened, unlike = time.process_time(), 0, []
        chunks = range(CHUNKS * (part - 1) // of, CHUNKS * part // of)
        known = recorded(function)
        assert known is not None
        for index in chunks:
            digest, found = chunk(function, index)
            opened += found
            if digest != known["chunks"][index]:
                unlike.append(index)
        wrong += len(unlike)
        seconds = time.process_time() - begin
        print(
            f"{function}: {len(chunks)} chunks, {len(unlike)} unlike the record {unlike[:5]}, {opened} open, "
            f"{seconds:.0f} s of the processor",
            flush=True,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
