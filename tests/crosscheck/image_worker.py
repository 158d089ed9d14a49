"""Worker for the preprocessing crosschecks: MXNet's resizes, its record iterator and Gluon's transforms."""

from __future__ import annotations

import math
import os
import tempfile
from typing import Any


def resize(request: Any, arrays: Any, emit: Any) -> Any:
    """{"image": uint8 (h, w, 3)}, request size [width, height], interp -> {"image"}: by MXNet's OpenCV.

    interp: MXNet's number, 1 for bilinear, 2 for cubic.
    """
    import mxnet as mx

    width, height = request["size"]
    image = mx.nd.array(arrays["image"], dtype="uint8")
    return {}, {"image": mx.image.imresize(image, width, height, interp=request["interp"]).asnumpy()}


ITERATORS = {
    "octave-scorer": {
        **{"mean_r": 124.0, "mean_g": 117.0, "mean_b": 104.0, "scale": 0.0167},
        **{"resize": 256, "inter_method": 2, "rand_crop": False},
    },
    "octave-gluon-record": {
        **{"mean_r": 123.68, "mean_g": 116.779, "mean_b": 103.939},
        **{"std_r": 58.393, "std_g": 57.12, "std_b": 57.375},
        "resize": math.ceil(224 / 0.875),
    },
}
"""What the official scoring scripts give to ImageRecordIter, by refnet's pipeline."""


def score(request: Any, arrays: Any, emit: Any) -> Any:
    """Request pipeline, files [path, ...]: yields "0", "1", ... as the official scorer feeds the network."""
    import mxnet as mx

    with tempfile.TemporaryDirectory() as folder:
        record = os.path.join(folder, "images.rec")
        writer = mx.recordio.MXRecordIO(record, "w")
        for i, path in enumerate(request["files"]):
            with open(path, "rb") as file:
                writer.write(mx.recordio.pack(mx.recordio.IRHeader(0, float(i), i, 0), file.read()))
        writer.close()
        batches = mx.io.ImageRecordIter(
            path_imgrec=record,
            data_shape=(3, 224, 224),
            batch_size=1,
            label_width=1,
            preprocess_threads=1,
            **ITERATORS[request["pipeline"]],
        )
        count = 0
        for batch in batches:
            emit(str(int(batch.label[0].asscalar())), batch.data[0].asnumpy())
            count += 1
    return {"count": count}, {}


def folder(request: Any, arrays: Any, emit: Any) -> Any:
    """Request files [path, ...]: yields "0", "1", ... as Gluon's folder data set and transforms make them."""
    import mxnet as mx
    from mxnet.gluon.data.vision import transforms

    steps = transforms.Compose(
        [
            transforms.Resize(math.ceil(224 / 0.875), keep_ratio=True),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    for i, path in enumerate(request["files"]):
        emit(str(i), steps(mx.image.imread(path, 1)).asnumpy()[None])
    return {}, {}


COMMANDS = {"resize": resize, "score": score, "folder": folder}
