"""The `expect` part of `model.yaml`: what a model must answer to pictures or texts of its owner."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from modelctl.models.network import Strict


class Expectation(Strict):
    """One input and its right answer; `modelctl add` and `modelctl verify` check it."""

    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = Field(
        default=None, description="A picture in the ensemble's folder."
    )
    text: str | None = Field(default=None, description="A text.")
    label: str = Field(min_length=1, description="Of a detector: of one of its boxes; else the first one.")
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
        default=None,
        description="Of a detector: xmin, ymin, xmax, ymax in the picture's pixels; a box of the label must overlap it "
        "by an intersection over union of 0.5.",
    )

    @model_validator(mode="after")
    def _one_input(self) -> Expectation:
        if (self.image is None) == (self.text is None):
            raise ValueError("give either image or text")
        if self.box is not None:
            xmin, ymin, xmax, ymax = self.box
            if not (xmin < xmax and ymin < ymax and all(map(math.isfinite, self.box))):
                raise ValueError("box: give xmin,ymin,xmax,ymax with xmin < xmax and ymin < ymax")
        return self

    @property
    def item(self) -> str:
        """What is asked, in words."""
        return self.image or f"'{(self.text or '')[:36]}'"
