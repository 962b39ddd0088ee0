"""The loop: steps, optimizers, schedules, checkpoints, and what a person sees of them."""
