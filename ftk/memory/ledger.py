"""Bytes that are alive, by kind, and the most that they ever were."""


class Ledger:
    """Bytes alive by kind, and what they were when they were most."""

    def __init__(self, *, grain: int) -> None:
        """Every allocation is rounded up to a multiple of `grain` bytes."""
        self.grain = grain
        self.live: dict[str, int] = {}
        self.total = 0
        self.peak: dict[str, int] = {}
        self.peak_total = 0
        self.peak_moment = ""
        self.moment = ""

    def take(self, kind: str, num_bytes: int) -> None:
        """Bytes are allocated."""
        self.live[kind] = self.live.get(kind, 0) + num_bytes
        self.total += num_bytes
        if self.total > self.peak_total:
            self.peak_total, self.peak, self.peak_moment = self.total, dict(self.live), self.moment

    def give(self, kind: str, num_bytes: int) -> None:
        """Bytes are freed."""
        self.live[kind] -= num_bytes
        self.total -= num_bytes


class Storage:
    """Bytes of a tensor; they are freed when the last reference goes."""

    __slots__ = ("_ledger", "kind", "num_bytes")

    def __init__(self, ledger: Ledger, kind: str, num_bytes: int) -> None:
        self._ledger, self.kind = ledger, kind
        self.num_bytes = -(-num_bytes // ledger.grain) * ledger.grain
        ledger.take(kind, self.num_bytes)

    def __del__(self) -> None:
        self._ledger.give(self.kind, self.num_bytes)

    def become(self, kind: str) -> None:
        """Count as another kind from now on."""
        self._ledger.give(self.kind, self.num_bytes)
        self.kind = kind
        self._ledger.take(kind, self.num_bytes)
