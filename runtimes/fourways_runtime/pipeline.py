"""The one pipeline every shell runs: decode, features, model, answers. No I/O.

Owns how the contract's fields and the model's tensors meet. That is settled once, when the
pipeline is built, so that a model that does not fit is refused before a record was read. What is
left to a batch is arithmetic on whole columns, and the same records give the same predictions
in every shell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fourways_api import Contract, InputField

from .answers import Reading, read_outputs
from .errors import ContractMismatch
from .features import Decoder, by_record
from .model.base import Model, Tensor
from .records import Array, Predictions, Records, Reject, Rows, Scored
from .sources.cells import Faults, numbers, numpy_type

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_TYPES = frozenset({"string", "str", "object"})
"""What a model may call its text."""
