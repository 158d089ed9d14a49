"""What a sum may start from, as kernels number it: +0, -0, the bias, another value's element at its place.

-0 keeps the first product unchanged, its sign included: -0 + a is a, whatever a is. Books call it "first".
"""

ZERO, NEGATIVE_ZERO, BIAS, ADDEND = range(4)
