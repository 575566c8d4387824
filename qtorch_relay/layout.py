"""How PyTorch holds a tensor in memory. Some of its kernels choose their arithmetic by it."""

from __future__ import annotations

from dataclasses import dataclass

_CHANNELS_LAST_ORDER = {4: (1, 3, 2, 0), 5: (1, 4, 3, 2, 0)}  # dimensions from the innermost on


@dataclass(frozen=True)
class Layout:
    """Shape, strides and offset of a tensor in its memory, counted in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def is_contiguous(self) -> bool:
        """Tells whether the last dimension is innermost and nothing lies between the elements."""
        return self._is_dense(tuple(reversed(range(len(self.shape)))))

    @property
    def is_channels_last(self) -> bool:
        """Tells whether [N, C, H, W] or [N, C, D, H, W] lies as NHWC or NDHWC; other ranks never do.

        Of [N, 1, H, W] and [N, C, 1, 1] this may hold as well as is_contiguous.
        """
        order = _CHANNELS_LAST_ORDER.get(len(self.shape))
        return order is not None and self._is_dense(order)

    def _is_dense(self, order: tuple[int, ...]) -> bool:
        expected = 1
        for axis in order:
            if self.shape[axis] == 1:
                continue
            if self.strides[axis] != expected:
                return False
            expected *= self.shape[axis]
        return True

    @property
    def suggests_channels_last(self) -> bool:
        """Tells whether PyTorch makes a copy of this tensor channels-last, if it is free to choose.

        Source: c10/core/MemoryFormat.h, is_channels_last_strides_2d_s4.
        """
        order = _CHANNELS_LAST_ORDER.get(len(self.shape))
        if order is None or self.strides[1] == 0:
            return False
        least = 0
        for axis in order:
            if self.shape[axis] == 0 or self.strides[axis] < least or (axis == 0 and least == self.strides[1]):
                return False
            least = self.strides[axis] * max(self.shape[axis], 1)
        return True

    def copied(self) -> Layout:
        """Returns the layout of such a copy: channels-last or contiguous, from the start of its memory."""
        axes = range(len(self.shape) - 1, -1, -1)
        order = _CHANNELS_LAST_ORDER[len(self.shape)] if self.suggests_channels_last else tuple(axes)
        strides = [0] * len(self.shape)
        step = 1
        for axis in order:
            strides[axis] = step
            step *= max(self.shape[axis], 1)
        return Layout(self.shape, tuple(strides))

    def unsqueezed(self, axis: int) -> Layout:
        """Returns the layout with a dimension of extent 1 before axis, counted from 0."""
        stride = self.shape[axis] * self.strides[axis] if axis < len(self.shape) else 1
        return Layout(
            (*self.shape[:axis], 1, *self.shape[axis:]),
            (*self.strides[:axis], stride, *self.strides[axis:]),
            self.offset,
        )
