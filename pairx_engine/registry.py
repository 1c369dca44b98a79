"""Members of one kind by name.

What a setting offers, an error lists and `--help` prints all come from what is registered here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from pairx_engine.errors import EngineError, did_you_mean


class Named(Protocol):
    """Whatever can be registered; `about` says in a few words what it is, and may be empty."""

    @property
    def name(self) -> str:
        """The name by which a user asks for it."""

    @property
    def about(self) -> str:
        """What help and settings print after the name."""


Member = TypeVar("Member", bound=Named)


class Registry(dict[str, Member]):
    """Members by name, in the order of their registration.

    `kind` is what errors call one of them. Importing a registry must stay cheap, since the command line's
    help is made from it.
    """

    def __init__(self, kind: str, members: Iterable[Member] = ()) -> None:
        super().__init__()
        self.kind = kind
        for member in members:
            self.register(member)

    def register(self, member: Member) -> None:
        """Add a member; raises `EngineError` if its name is taken."""
        if member.name in self:
            raise EngineError(f"there is a {self.kind} {member.name!r} already")
        self[member.name] = member

    def named(self, name: str) -> Member:
        """The member of that name; raises `EngineError` that lists the known names."""
        if name not in self:
            near = did_you_mean(name, self)
            raise EngineError(f"unknown {self.kind} {name!r}; choose one of {', '.join(self)}{near}")
        return self[name]

    def listed(self) -> str:
        """All names with what they say about themselves, as one phrase."""
        *others, last = (f"{name} ({m.about})" if m.about else name for name, m in self.items())
        return f"{', '.join(others)} or {last}" if others else last
