"""How a text becomes tokens of the model: the settings of an input of type string."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import ApiModel

MAX_TOKENS = 65_536
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
TensorName = Annotated[str, Field(min_length=1, max_length=253)]


class TokensInput(ApiModel):
    """How a text becomes tokens: cut and padded to a length, with the tokenizer of the contract."""

    max_length: Tokens
    """Number of tokens that the model takes, with the special ones. Longer texts are cut."""

    pad_to_multiple_of: Tokens | None = None
    """Pad a text to the next multiple of this, at most maxLength. Texts of one length are scored
    together. Default: every text is padded to maxLength."""

    truncation_side: Literal["Right", "Left"] = "Right"
    """Where a longer text is cut: Right keeps its beginning, Left its end."""

    pad_token: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Token to pad with. Default: that of the tokenizer's file, otherwise [PAD] or <pad>."""

    special_tokens: bool = True
    """Add the tokens that the tokenizer's file puts around a text, such as [CLS] and [SEP]."""

    ids: TensorName = "input_ids"
    """Input tensor of the model for the tokens' numbers."""

    mask: TensorName = "attention_mask"
    """Input tensor for the mask, 1 for a token and 0 for padding, if the model has one."""

    type_ids: TensorName = "token_type_ids"
    """Input tensor for the types of tokens, if the model has one."""
