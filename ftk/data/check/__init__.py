"""What a good data set needs, looked for in the rows: a file for each kind of finding, and a line for each here.

A check either judges a row by itself, or keeps a few bytes of each row and judges it by the others (see `scan.py`).
"""

from ftk.data.check.casing import Casing
from ftk.data.check.contradiction import Contradiction
from ftk.data.check.empty import Empty
from ftk.data.check.encoding import Encoding
from ftk.data.check.ending import Ending
from ftk.data.check.exact_duplicate import ExactDuplicate
from ftk.data.check.imbalance import Imbalance
from ftk.data.check.overlap import PromptHash
from ftk.data.check.scan import RowCheck, SetCheck
from ftk.data.check.whitespace import Whitespace

ROW_CHECKS: tuple[RowCheck, ...] = (Empty(), Whitespace(), Encoding())
"""What is said of a row by itself; `Rendered` and `SpecialTokenLeak` join them, which depend on the model."""
SET_CHECKS: tuple[SetCheck, ...] = (ExactDuplicate(), PromptHash(), Contradiction(), Casing(), Imbalance(), Ending())
"""What is said of a row among the others; `LengthOutlier` and `NearDuplicate` join them, which have settings."""
