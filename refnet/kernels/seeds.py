"""What a sum may start from, numbered as in core/orders.py (`Code`): +0, -0, the bias, the addend's element.

-0 keeps the first product unchanged, its sign included: -0 + a is a, whatever a is. Books call it "first".
"""

from refnet.core.orders import Code

ZERO, NEGATIVE_ZERO, BIAS, ADDEND = (code.value for code in (Code.ZERO, Code.FIRST, Code.BIAS, Code.ADDEND))
