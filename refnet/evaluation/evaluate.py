"""The public `refnet.evaluate`: top-1 and top-5 of a network on labelled images.

load, image_set ── divided ── results (workers/) ── evaluate_part in workers
                                 └── Folder.write, one part at a time ── rows by id ── Evaluation
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from refnet import __version__
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.plain import Plain
from refnet.arithmetic.replay import Replay
from refnet.core.errors import InputError
from refnet.core.graph import Graph
from refnet.core.interpreter import Arithmetic
from refnet.core.limits import limits as limits_now
from refnet.evaluation.images import ImageSet, LabelledImage, image_set
from refnet.evaluation.labels import classes
from refnet.evaluation.part import Method, Part, Row, evaluate_part, evaluator
from refnet.evaluation.parts import Folder, divided, states
from refnet.formats import book as book_file
from refnet.formats.arguments import NETWORK, OPTIONAL, TEXT, check_arguments
from refnet.kernels.resources import processors
from refnet.models.catalog import Entry
from refnet.models.loading import Model, Size, load, network_of
from refnet.models.preprocess import pipeline as pipeline_of
from refnet.verification.progress import Progress, advancing
from refnet.workers.held import parcel
from refnet.workers.workers import Workers, results

NEEDED = replace(NETWORK, needed=True)
PART = 64
"""Images of a part, or the next multiple of the batch: half a minute of work at most is done twice."""


@dataclass(frozen=True)
class Evaluation:
    """What was counted. rows: one per image, sorted by id. identity: by what they were computed.

    layout, mapping: where the labels come from, in words; mapping is None if no number was a label. notes:
    files and labels that were left out. published: the (top-1, top-5) of the network's authors in percent.

    >>> Evaluation({}, (Row("a.png", 3, (8, 3), ("0x3f000000", "0x3e000000")),), "a list", None).right(5)
    1
    """

    identity: Mapping[str, str | int]
    rows: tuple[Row, ...]
    layout: str
    mapping: str | None
    notes: tuple[str, ...] = ()
    published: tuple[float, float] | None = None

    @property
    def unread(self) -> tuple[Row, ...]:
        """The images that could not be read."""
        return tuple(row for row in self.rows if row.error)

    @property
    def counted(self) -> int:
        """The images that could be read."""
        return len(self.rows) - len(self.unread)

    def right(self, best: int) -> int:
        """How many images have their label among the `best` (1 to 5) most probable classes.

        Of equally probable classes the one with the lower number comes first.
        """
        return sum(row.label in row.classes[:best] for row in self.rows)

    @property
    def exit_code(self) -> int:
        """0, or 2 if an image could not be read."""
        return 2 if self.unread else 0


def evaluate(
    model: Model | Graph,
    images: str | os.PathLike[str] | None = None,
    *,
    image_list: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    mapping: str | None = None,
    weights: Model | None = None,
    network: str | None = None,
    image: Size | None = None,
    pipeline: str | None = None,
    arithmetic: Arithmetic | None = None,
    batch: int | None = None,
    output: str | os.PathLike[str] | None = None,
    processes: int | None = None,
    dask: str | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Count how often a network's most probable class, and one of its five, is the label.

    model, weights, network, image: as for `refnet.load`, or a Graph with its weights. images: a folder of
    folders called like classes, or with `labels` a folder of images. image_list: a file of lines
    `path label` instead. labels: a file of labels (docs/evaluate.md has the layouts). mapping: what numbers
    mean: "outputs", or a file of lines NUMBER SYNSET, or of synsets from 0. Without images and list: the 360
    digits that ship with refnet. pipeline: default the network's own. arithmetic: Plain(), Golden() or
    Replay(book), of which every worker makes its own; its threads are those of each worker (None: this
    machine's processors, divided among its processes). batch: images of a run (default: 8, or the book's).
    output: a folder that keeps every finished part, so that a rerun goes on, and gets rows.csv.

    processes, dask ("local:N" or a scheduler's address), executor (any concurrent.futures.Executor): who
    computes; give one at most. A script that gives `processes` or dask="local:N" needs the usual
    `if __name__ == "__main__":`. progress: called with (images done, images in all).

    Neither workers nor threads change a bit of a row. Raises InputError for what does not fit together, and
    for a part in `output` of another run.

    >>> import refnet
    >>> found = refnet.evaluate("resnest-digits")
    >>> found.right(1), found.right(5), found.counted
    (357, 360, 360)
    """
    paths = dict.fromkeys(("images", "image_list", "labels", "output"), OPTIONAL)
    check_arguments(locals(), {**paths, "model": NEEDED, "mapping": TEXT, "dask": TEXT})
    workers = Workers(processes, dask, executor)
    entry = network_of(model.name if isinstance(model, Graph) else model, network)
    graph = _graph(model, weights, network, image)
    name, count = _probabilities(graph)
    known = classes(entry, count, mapping)
    if images is None and image_list is None and (entry is None or entry.dataset != "digits"):
        raise InputError(f"{graph.name}: name its images, a folder or a list; only digits ship with refnet")
    found = image_set(known, images, image_list, labels)
    method = _method(Plain() if arithmetic is None else arithmetic, workers)
    size = batch or (method.book.reference.batch if method.book is not None else 8)
    chosen = _pipeline(graph, entry, pipeline)
    identity = _identity(graph, method, chosen, size, found.images)
    folder = None if output is None else Folder(Path(output), identity)
    parts = tuple(divided(found.images, -(-PART // size) * size))
    with limits_now() as most:
        made = evaluator(graph, name, chosen, method, size, most)
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    done: dict[Part, tuple[Row, ...]] = {}
    advance = advancing(progress, len(found.images))
    if folder is not None:
        folder.make()
        done = {part: rows for part in parts if (rows := folder.read(part)) is not None}
        if advance is not None:
            advance(sum(map(len, done.values())))
    left = [part for part in parts if part not in done]
    files = {part: states(part) for part in left}  # as they are before they are read
    for part, rows in results(workers, parcel(key, evaluate_part, made), left):
        if folder is not None:
            folder.write(part, rows, files[part])
        done[part] = rows
        if advance is not None:
            advance(len(rows))
    merged = _merged(found, parts, done)
    if folder is not None:
        folder.write_rows(merged)
    words = None if known.numbering is None else known.numbering.words
    published = None if entry is None else entry.accuracy
    return Evaluation(identity, merged, found.layout, words, found.notes, published)


def _graph(model: Model | Graph, weights: Model | None, network: str | None, image: Size | None) -> Graph:
    """The graph with its weights."""
    if not isinstance(model, Graph):
        return load(model, weights=weights, network=network, image=image)
    if weights is not None or image is not None:
        raise InputError("weights, image: a Graph has its own; leave them out")
    if missing := [name for name in model.weight_types if name not in model.weights]:
        raise InputError(f"{model.name} has no weights ({missing[0]}, ...): load them first")
    return model


def _probabilities(graph: Graph) -> tuple[str, int]:
    """The output that is ranked, and how many classes it has."""
    if len(graph.inputs) != 1:
        raise InputError(f"{graph.name} has {len(graph.inputs)} inputs ({', '.join(graph.inputs)}), not one")
    name = "prob" if "prob" in graph.outputs else next(iter(graph.outputs))
    kind = graph.types()[graph.outputs[name]]
    if len(kind.shape) != 2:
        raise InputError(f"{graph.name}: output {name!r} is {kind!r}, not classes")
    return name, kind.shape[1]


def _pipeline(graph: Graph, entry: Entry | None, given: str | None) -> str:
    """The pipeline's name, once it is known to make the network's input."""
    name = given or (entry.pipeline if entry is not None else None)
    if name is None:
        raise InputError(f"{graph.name}: choose the preprocessing, a pipeline or a network of the catalog")
    ((data, kind),) = graph.inputs.items()
    shape = pipeline_of(name).shape
    if shape != kind.shape[1:]:
        raise InputError(f"{graph.name}: input {data!r} is {kind!r}, but pipeline {name} makes {list(shape)}")
    return name


def _method(arithmetic: Arithmetic, workers: Workers) -> Method:
    """The arithmetic as data; processes of one machine share its processors."""
    if not isinstance(arithmetic, Plain | Golden | Replay):
        raise InputError(f"arithmetic must be Plain, Golden or Replay, got {arithmetic!r:.100}")
    if isinstance(arithmetic, Golden) and arithmetic.refine_count is not None:
        raise InputError("arithmetic: a refine_count is filled in one process only; make Golden without it")
    threads = arithmetic.threads
    if threads is None and workers.local not in (None, 1):
        threads = max(1, processors() // (workers.local or 1))
    kernels = "fast" if isinstance(arithmetic, Golden) else arithmetic.kernels
    book = arithmetic.book if isinstance(arithmetic, Replay) else None
    return Method(arithmetic.name, kernels, threads, book)


def _identity(
    graph: Graph, method: Method, pipeline: str, batch: int, images: Sequence[LabelledImage]
) -> dict[str, str | int]:
    """What the rows depend on, and nothing else: no threads, no workers, no paths."""
    listed = json.dumps([[image.id, image.label] for image in images]).encode()
    found: dict[str, str | int] = {
        "refnet": __version__,
        "model": graph.name,
        "graph": graph.structure_hash(),
        "weights": graph.weights_hash(),
        "arithmetic": method.arithmetic,
        "pipeline": pipeline,
        "images": hashlib.sha256(listed).hexdigest(),
        "batch": batch,
    }
    if method.book is not None:
        found["book"] = hashlib.sha256(book_file.dumps(method.book).encode()).hexdigest()
    return found


def _merged(found: ImageSet, parts: Sequence[Part], done: Mapping[Part, tuple[Row, ...]]) -> tuple[Row, ...]:
    """The rows of all parts, each image once."""
    rows = {row.id: row for part in parts for row in done[part]}
    if len(rows) != len(found.images):
        raise InputError(f"{len(rows)} rows of {len(found.images)} images: this is a bug in refnet")
    return tuple(rows[image.id] for image in found.images)
