"""The pipeline of a network's images: the catalog's, or what a converted file's own preprocessing leaves."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np

from refnet.models.catalog import Entry
from refnet.models.preprocess import pipelines
from refnet.models.weights_file import source_of

MEANS = {"octave": "octave-accuracy-checker", "resnest": "resnest"}
"""Family -> the pipeline whose means a converted network of it subtracts."""


def usual_pipeline(model: str | os.PathLike[str], entry: Entry | None) -> str | None:
    """The name of the pipeline that makes this model's inputs, None if it cannot be known.

    For OpenVINO's .xml it is what the file says: without preprocessing inside the catalog's pipeline, with
    the means of a network of the catalog inside that network's raw pixels; the latter is said to the logger
    "refnet". entry: the model's, if the catalog has it.

    >>> from refnet.models.catalog import entry
    >>> usual_pipeline("resnest-digits", entry("resnest-digits"))
    'digits'
    """
    known = entry.pipeline if entry else None
    file = source_of(model).file
    if not file.endswith(".xml"):
        return known
    from refnet.formats.openvino.pixels import preprocessing

    inside = preprocessing(file)
    if inside is None:
        return known
    log = logging.getLogger("refnet")
    name = None if inside.means is None else by_means(inside.means)
    if name is None:
        shown = "none apart" if inside.means is None else ", ".join(f"{m:g}" for m in inside.means)
        log.warning(
            "%s: preprocessing inside of the file that no pipeline is known for (means: %s)", file, shown
        )
    else:
        order = pipelines()[name].order
        log.warning("%s: takes pixels from 0 to 255 in the order %s: mean and scale are inside", file, order)
    return name


def by_means(means: Sequence[float]) -> str | None:
    """The pipeline of raw pixels for a network that subtracts these, in float32 or rounded to float16.

    >>> by_means([104, 117, 124]), by_means([123.6875, 116.25, 103.5]), by_means([1, 2, 3])
    ('octave-raw-bgr', 'resnest-raw-rgb', None)
    """
    found = np.array(means, np.float32)
    for family, pipeline in MEANS.items():
        own = np.array(pipelines()[pipeline].mean, np.float32)
        for order, expected in (("bgr", own[::-1]), ("rgb", own)):
            for rounded in (expected, expected.astype(np.float16).astype(np.float32)):
                if np.array_equal(found, rounded):
                    return f"{family}-raw-{order}"
    return None
