"""refnet bench --kernels: the kernels of a run, each timed in its place."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from refnet.cli.common import counting, print_json, refuse_given, usable
from refnet.core.errors import InputError


def check_kernels(a: argparse.Namespace) -> None:
    """Raises InputError for what --kernels cannot take."""
    ignored = ("startup", "scaling", "table", "against", "python", "profile", "module", "path", "argument")
    refuse_given(a, (*ignored, "state", "baseline", "svg"), "--kernels times refnet alone, kernel by kernel")
    if a.csv is not None and not a.csv.absolute().parent.is_dir():
        raise InputError(f"--csv {a.csv}: there is no such folder")


def bench_kernels(a: argparse.Namespace) -> None:
    """Time the networks' kernels, print them, and write --csv: all that is finished, also if one fails."""
    from refnet.bench.kernels import kernel_times
    from refnet.bench.machine import machine, with_speeds
    from refnet.formats.write import whole_file
    from refnet.frameworks.launch import MODELS, check_model, prepare
    from refnet.report.bench import show_machine
    from refnet.report.bench_kernels import kernels_csv, kernels_record, show_kernels, show_legend

    here = machine()
    models = [usable(name, a.network) for name in a.model.split(",")] if a.model else list(MODELS)
    for model in models:
        check_model(model, a.network, a.image, a.arithmetic)
    here = with_speeds(here, a.threads, memory=True)
    if not a.json:
        show_machine(here)
    found = []
    try:
        with counting("runs", len(models) * len(a.threads) * len(a.batch) * a.runs) as advance:
            for model in models:
                with tempfile.TemporaryDirectory(prefix="refnet-bench-") as folder:
                    ready = prepare(
                        model,
                        Path(folder),
                        weights=a.weights,
                        network=a.network,
                        image=a.image,
                        arithmetic=a.arithmetic,
                    )
                    for threads in a.threads:
                        for batch in a.batch:
                            found.append(kernel_times(ready, threads, batch, a.runs, advance))
                            if not a.json:
                                show_kernels(found[-1], here)
    finally:
        if a.csv is not None and found:
            with whole_file(a.csv) as stream:
                stream.write(kernels_csv(here, found).encode())
    if a.json:
        print_json(kernels_record(here, found))
    else:
        show_legend(here)
