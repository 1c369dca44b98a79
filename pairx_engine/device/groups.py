"""Groups of as many items as fit into memory.

Groups are filled up to one size where numbers must not depend on how many items there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from pairx_engine.device.accelerator import out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_groups(
    items: Sequence[Item], size: int, work: Callable[[Sequence[Item], int], Result]
) -> Iterator[Result]:
    """`work(group, size)` on groups of at most `size` items, in order.

    Where memory runs out, the group is halved, and the smaller size is kept from then on. With a single item,
    at size 1, torch's own error is raised.
    """
    done = 0
    while done < len(items):
        group = items[done : done + size]
        try:
            result = work(group, size)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if size == 1 or not out_of_memory(error):
                raise
            # Half of what was there, not half of `size`: a short group may be far below it.
            size = (len(group) + 1) // 2
            continue
        done += len(group)
        yield result


def filled(items: Sequence[Item], size: int) -> list[Item]:
    """The items, the last one repeated up to `size` of them."""
    return [*items, *[items[-1]] * (size - len(items))]


def rows(starts: Tensor, first: int, wanted: int, count: int) -> Tensor:
    """Starts `first` to `first + wanted`; the last one is repeated until there are `count`."""
    given = starts[first : first + wanted]
    given = given if len(given) else starts[-1:]
    missing = count - len(given)
    return torch.cat([given, given[-1:].expand(missing, -1)]) if missing else given


def first_of_each(values: Tensor, photos: int, count: int) -> Tensor:
    """Of each photo's items the first few: (photos * n, ...) to (photos * count, ...)."""
    if len(values) == photos * count:
        return values
    if photos == 1:
        return values[:count]
    return values.unflatten(0, (photos, -1))[:, :count].flatten(0, 1)


def of_photo(values: Tensor, photo: int, photos: int) -> Tensor:
    """One photo's items: (photos * n, ...) to (n, ...).

    Sliced, because other ways of indexing lose the memory layout of maps of one item.
    """
    count = len(values) // photos
    return values[photo * count : (photo + 1) * count]


def together(parts: Sequence[Tensor]) -> Tensor:
    """Parts (n, ...) one after the other."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
