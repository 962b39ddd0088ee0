"""`ftk env`: what a bug report needs."""

from collections.abc import Mapping


def command() -> Mapping[str, object]:
    """Print versions, the machine and its devices."""
    from ftk.runs.environment import environment

    found = environment()
    for key, value in found.items():
        if key == "packages":
            lines = [f"  {name} {version}" for name, version in value.items()]
        elif key == "devices":
            lines = [f"  {_line(device)}" for device in value] or ["  none: the CPU is used"]
        else:
            print(f"{key}: {_readable(key, value)}")
            continue
        print("\n".join([f"{key}:", *lines]))
    return found


def _line(device: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {_readable(key, value)}" if key != "name" else str(value) for key, value in device.items())


def _readable(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**30:.1f} GiB"
    return "unknown" if value is None else str(value)
