"""`ftk estimate-memory`."""

from collections.abc import Mapping
from typing import Annotated

import typer


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE] [OVERRIDES]...", help="A recipe file, and values to change as path=value."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Hub id, folder or config.json of the model.")] = None,
    params: Annotated[str | None, typer.Option("--params", help="A bare number of parameters, such as 13B.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="bf16, fp16 or fp32: how it is computed.")] = None,
    batch_size: Annotated[str | None, typer.Option("--batch-size", help="Rows a forward pass on a device.")] = None,
    sequence_length: Annotated[str | None, typer.Option("--sequence-length", help="Tokens of a row.")] = None,
    tuning: Annotated[str | None, typer.Option("--tuning", help="full, lora or qlora.")] = None,
    quantization: Annotated[str | None, typer.Option("--quantization", help="nf4, int8 or none.")] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="adamw, adamw_8bit, sgd or momentum.")] = None,
    checkpointing: Annotated[
        bool | None, typer.Option("--checkpointing/--no-checkpointing", help="Recompute activations.")
    ] = None,
    processes: Annotated[str | None, typer.Option("--processes", help="Number of devices.")] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="ddp, zero1, zero2, zero3, fsdp or fsdp_offload.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cuda or cpu; by default cuda.")] = None,
    tokens: Annotated[str | None, typer.Option("--tokens", help="Tokens trained on, for work and time.")] = None,
    on: Annotated[str | None, typer.Option("--on", help="GPU by which time and price are told.")] = None,
    utilisation: Annotated[
        float | None, typer.Option("--utilisation", help="Part of its peak that is reached; by default 0.4.")
    ] = None,
    price: Annotated[float | None, typer.Option("--price", help="Dollars an hour for one device.")] = None,
    rollout: Annotated[
        str | None,
        typer.Option("--rollout", help="Answers drawn together as GRPO does, such as 8 or 8x1024 (tokens of each)."),
    ] = None,
    fit: Annotated[str | None, typer.Option("--fit", help="Find what makes it fit into so much, such as 24GB.")] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="The same for a GPU, such as 'RTX 4090'.")] = None,
    write: Annotated[
        str | None, typer.Option("--write", help="A new recipe, with the least harmful changes that fit.")
    ] = None,
    compare: Annotated[str | None, typer.Option("--compare", help="Several methods, such as full,lora,qlora.")] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Several values, such as sequence_length=1k..32k or rank=8,16,64.")
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option("--picture", help="Where --compare and --sweep draw, by default memory.png; replaced if there."),
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Run one step on imagined weights, and count what it allocates.")
    ] = False,
) -> Mapping[str, object] | None:
    """Tell what a run will take, before anything is loaded or rented.

    Of a recipe, of --model with flags, or of a bare number of --params. Only configurations are read.
    """
    if params is not None:
        from ftk.memory.bare_count import bare_count
        from ftk.runs.estimate_shown import print_estimate

        given: dict[str, object] = {"RECIPE": words or None, "--model": model}
        given |= {"--tuning": tuning if tuning != "full" else None}
        given |= {"--batch-size": batch_size, "--sequence-length": sequence_length, "--quantization": quantization}
        given |= {"--checkpointing": checkpointing, "--processes": processes, "--strategy": strategy}
        given |= {"--device": device, "--tokens": tokens, "--on": on, "--utilisation": utilisation, "--price": price}
        given |= {"--fit": fit, "--gpu": gpu, "--write": write, "--compare": compare, "--sweep": sweep}
        given |= {"--picture": picture, "--simulate": simulate or None, "--rollout": rollout}
        answer = bare_count(params, dtype=dtype or "bf16", optimizer=optimizer or "adamw", others=given)
        print_estimate(params, answer)
        return answer.as_json()

    from ftk.runs.advising.advise import Advice, advise
    from ftk.runs.asked import Flags, ask
    from ftk.runs.estimate import estimate
    from ftk.runs.estimate_shown import print_estimate

    flags = Flags(
        model=model,
        dtype=dtype,
        batch_size=batch_size,
        sequence_length=sequence_length,
        tuning=tuning,
        quantization=quantization,
        optimizer=optimizer,
        checkpointing=checkpointing,
        processes=processes,
        strategy=strategy,
        device=device or "cuda",
        tokens=tokens,
        on=on,
        utilisation=utilisation,
        price=price,
        rollout=rollout,
    )
    if simulate and any((fit, gpu, write, compare, sweep)):
        from ftk.core.errors import RecipeError

        raise RecipeError(
            "--simulate answers for one setting, and --fit, --gpu, --compare and --sweep look at many. Leave it out, "
            "or simulate what they found",
            place="--simulate",
        )
    advised = advise(tuple(words or ()), flags, Advice(fit, gpu, write, compare, sweep, picture))
    if advised is not None:
        return advised
    asked = ask(tuple(words or ()), flags)
    answer = estimate(asked)
    if simulate:
        from ftk.runs.simulate import simulate as simulated

        answer = simulated(asked, answer)
    print_estimate(asked.numbers.name, answer)
    return answer.as_json()
