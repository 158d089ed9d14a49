"""What an op says of integers and booleans. Neither architecture has any: their ops keep these answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from refnet.core.op import TensorType


class OfIntegers:
    """A base of Op; an op of integers says otherwise."""

    any_dtype: ClassVar[bool] = False
    """True if data, weights or value may be integers or booleans; `type` says which."""

    def unspecified(self, *inputs: Any) -> npt.NDArray[np.bool_]:
        """Per element of an integer value: whether no result is right, and frameworks may answer anything."""
        return np.zeros((), np.bool_)

    def index_limit(self, place: int, *inputs: TensorType) -> int | None:
        """Of the integers in input `place`: the first that means nothing; None: all may mean something."""
        return None
