"""Worker for the preprocessing crosschecks: MXNet's own resize, and its ImageRecordIter on image files."""

from __future__ import annotations

import os
import tempfile
from typing import Any


def resize(request: Any, arrays: Any, emit: Any) -> Any:
    """{"image": uint8 (h, w, 3)}, request size [width, height] -> {"image"}: OpenCV's cubic in MXNet."""
    import mxnet as mx

    width, height = request["size"]
    image = mx.nd.array(arrays["image"], dtype="uint8")
    return {}, {"image": mx.image.imresize(image, width, height, interp=2).asnumpy()}


def score(request: Any, arrays: Any, emit: Any) -> Any:
    """Request files [path, ...]: yields "0", "1", ... as the official scorer feeds them to the network."""
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
            mean_r=124.0,
            mean_g=117.0,
            mean_b=104.0,
            scale=0.0167,
            rand_crop=False,
            resize=256,
            inter_method=2,
        )
        count = 0
        for batch in batches:
            emit(str(int(batch.label[0].asscalar())), batch.data[0].asnumpy())
            count += 1
    return {"count": count}, {}


COMMANDS = {"resize": resize, "score": score}
