"""What kind of work a kernel or an operator does, told by its name and the shapes that it is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_KERNELS = [
    ("depthwise", r"depthwise|grouped_direct|dgrad2d_grouped|wgrad2d_grouped|direct_group"),
    ("layout conversion", r"nchwtonhwc|nhwctonchw|nchw2nhwc|nhwc2nchw|transpose|permute"),
    (
        "dense convolution or product",
        r"gemm|cutlass|conv(?!ert)|implicit|winograd|fprop|dgrad|xmma|sgemm|hgemm|nvjet|gemv|cudnn.*engine|splitk",
    ),
    ("copy", r"memcpy|memset|copy|catarray|fill"),
    ("reduction", r"reduce|softmax|norm|welford|sort|scan|pool"),
    ("elementwise", r"elementwise|vectorized|unrolled|pointwise|index|scatter|gather|where|triton"),
]
_OPERATORS = [
    ("dense convolution or product", r"conv|mm$|bmm|addmm|linear|matmul|dot"),
    ("layout conversion", r"contiguous|clone|permute|transpose|to_copy|_to_"),
    ("copy", r"copy_|cat|fill_|zero|empty|resize|pad"),
    ("reduction", r"sum|mean|max|min|norm|pool|sort|cdist|any|all"),
    (
        "elementwise",
        r"add|mul|div|sub|abs|silu|sigmoid|relu|clamp|where|sign|neg|reciprocal|exp|sqrt|pow|gt|lt",
    ),
]
_OTHER = "other"


def kind_of_kernel(name: str) -> str:
    """The kind of a GPU's kernel.

    The first pattern that fits counts; names are the libraries' own and not promised.
    """
    return _first(_KERNELS, name)


def kind_of_operator(name: str, shapes: Sequence[Any]) -> str:
    """The kind of one of torch's operators; a convolution whose weight has one input channel is depthwise."""
    kind = _first(_OPERATORS, name)
    weight = shapes[1] if len(shapes) > 1 else None
    if "conv" in name and weight and len(weight) == 4 and weight[1] == 1:
        return "depthwise"
    return kind


def _first(patterns: Sequence[tuple[str, str]], name: str) -> str:
    return next((kind for kind, pattern in patterns if re.search(pattern, name.lower())), _OTHER)
