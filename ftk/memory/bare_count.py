"""What can be said of a bare number of parameters: the rule of thumb."""

from collections.abc import Mapping

from ftk.core.errors import RecipeError
from ftk.memory.estimate import Estimate, Inference, MemoryBytes, PerDevice
from ftk.memory.rule_of_thumb import STATES, rule_of_thumb
from ftk.memory.units import one_of, parse_count

NUMBER_BYTES = {
    "fp32": 4.0,
    "float32": 4.0,
    "bf16": 2.0,
    "bfloat16": 2.0,
    "fp16": 2.0,
    "float16": 2.0,
    "int8": 1.0,
    "int4": 0.5,
    "nf4": 0.5,
}
OPTIMIZERS = {"adamw": "adam", "adam": "adam", "sgd": "sgd", "momentum": "momentum"}


def bare_count(params: str, *, dtype: str, optimizer: str, others: Mapping[str, object]) -> Estimate:
    """The rule of thumb for a number such as `13B`, all of which is trained.

    Args:
        others: what needs an architecture, by its flag; None where it was not given.

    Raises:
        RecipeError: the number, the type or the optimizer does not read, or `others` has something.
    """
    foreign = [flag for flag, value in others.items() if value is not None]
    if foreign:
        raise RecipeError(
            f"a bare number has no architecture, which {foreign[0]} needs. Give --params with --dtype and --optimizer "
            "at most, or --model without it",
            place="--params",
        )
    parameters = parse_count(params, place="--params")
    width = one_of(dtype, NUMBER_BYTES, place="--dtype")
    states = STATES[one_of(optimizer, OPTIMIZERS, place="--optimizer")]
    rule = rule_of_thumb(parameters, parameters, weight_bytes=width, states=states)
    weights, moved = rule["weights_bytes"], rule["gradients_and_states_bytes"]
    gradients = moved // (1 + states)
    training = MemoryBytes(weights, 0, gradients, moved - gradients, 0, 0, 0)
    return Estimate(
        parameters=parameters,
        trainable_parameters=parameters,
        active_parameters=parameters,
        inference=Inference(weights, None, rule["inference_bytes"]),
        training=training,
        per_device=PerDevice(1, "ddp", training),
        rule_of_thumb=rule,
        method="rule_of_thumb",
        peak_moment="",
        activations={},
        work={},
        gpus=(),
        notes=(
            "activations, the output head and buffers are left out: they need an architecture (--model)",
            "the fifth above the weights to serve stands for keys, values and activations together",
        ),
    )
