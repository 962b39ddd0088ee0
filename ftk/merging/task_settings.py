"""Settings that methods on task vectors have in common."""

from typing import Annotated

from pydantic import Field

Normalize = Annotated[
    bool,
    Field(
        description="Whether the sum of changes is divided by the sum of the weights. With it, weights are shares; "
        "without it, each model's changes are added at their weight."
    ),
]
Lambda = Annotated[
    float,
    Field(alias="lambda", description="Factor on the merged changes. Below 1 the result stays closer to the base."),
]
