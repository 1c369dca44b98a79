"""A network held by one thread, frozen and in evaluation mode, and left as it was found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class State:
    """The state of a network in use: its lock, and what to do at each release.

    `at_release` is there while rules are open on the network.
    """

    lock: Any = field(default_factory=threading.RLock)
    at_release: Callable[[], None] | None = None


_STATES: WeakKeyDictionary[nn.Module, State] = WeakKeyDictionary()
_STATES_LOCK = threading.Lock()


def state_of(network: nn.Module) -> State:
    """The one state of a network in this process."""
    with _STATES_LOCK:
        return _STATES.setdefault(network, State())


@contextmanager
def exclusive(network: nn.Module) -> Iterator[None]:
    """Hold the network for this thread, in evaluation mode and with frozen parameters.

    Both are restored afterwards. Re-entrant within a thread; other threads wait. Networks that share modules
    under different roots are not covered.
    """
    state = state_of(network)
    with state.lock:
        training = [module for module in network.modules() if module.training]
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        try:
            for module in training:
                module.training = False
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in learning:
                parameter.requires_grad_(True)
            if state.at_release is not None:
                state.at_release()
