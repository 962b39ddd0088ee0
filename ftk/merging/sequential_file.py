"""New files, written in order past the kernel's cache where the system lets them. Shapes: N bytes."""

import errno
import fcntl
import mmap
import os
from pathlib import Path

import torch
from torch import Tensor

BUFFER_BYTES = 8 * 2**20
"""Written at once; a whole number of any disk's blocks."""
SYNCED_AT_ONCE_BYTES = 128 * 2**20
"""Left alone, the kernel starts to write its cache half a minute later, and the sync at the end waits for all of it."""


class SequentialFile:
    """A new file, which is on disk once it is closed.

    On its way through the kernel's cache each byte is copied once more, into memory that has to be found first, which
    takes longer than a fast disk does. So full buffers go straight to the disk (O_DIRECT of open(2)); where a file
    system knows no such thing they go through the cache.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: the file exists, or cannot be made.
        """
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        # Whole pages, since what goes straight to the disk must be aligned in memory too.
        self._memory = mmap.mmap(-1, BUFFER_BYTES)
        self._buffer_N = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._num_buffered = self._num_written = self._num_unsynced = 0
        self._is_direct = False
        self._go_direct(True)

    def write(self, data_N: Tensor) -> None:
        """Append bytes, uint8 [N]; they are copied before this returns.

        Raises:
            OSError: they cannot be written.
        """
        while data_N.numel():
            count = min(data_N.numel(), BUFFER_BYTES - self._num_buffered)
            self._buffer_N[self._num_buffered : self._num_buffered + count].copy_(data_N[:count])
            self._num_buffered += count
            data_N = data_N[count:]
            if self._num_buffered == BUFFER_BYTES:
                self._flush()

    def finish(self) -> None:
        """Write what is left, wait until all is on disk, and close.

        Raises:
            OSError: it cannot be written.
        """
        # The rest is no whole number of blocks.
        self._go_direct(False)
        self._flush()
        os.fdatasync(self._descriptor)
        self.close()

    def close(self) -> None:
        """Close, and let go of what is not written; again, do nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _flush(self) -> None:
        with memoryview(self._memory) as whole, whole[: self._num_buffered] as data:
            start = 0
            while start < len(data):
                start += self._write_some(data[start:])
        self._num_unsynced += self._num_buffered
        self._num_buffered = 0
        if not self._is_direct and self._num_unsynced >= SYNCED_AT_ONCE_BYTES:
            os.fdatasync(self._descriptor)
            self._num_unsynced = 0

    def _write_some(self, data: memoryview) -> int:
        try:
            count = os.pwrite(self._descriptor, data, self._num_written)
        except OSError as error:
            if not self._is_direct or error.errno != errno.EINVAL:
                raise
            # Blocks are larger than pages here, or an earlier write ended within one.
            self._go_direct(False)
            count = os.pwrite(self._descriptor, data, self._num_written)
        self._num_written += count
        return count

    def _go_direct(self, direct: bool) -> None:
        flag = getattr(os, "O_DIRECT", 0)
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | flag if direct else flags & ~flag)
        except OSError as error:
            if not direct or error.errno != errno.EINVAL:
                raise
            return
        self._is_direct = direct and flag != 0
