"""Types that several modules name, for annotations alone: no module imports it when it runs."""

from __future__ import annotations

from typing import Any, Protocol

from litplex._profile import Profile


class Server(Protocol):
    """The parts of a ``LitServer`` that other modules read.

    Attributes:
        apis: Its models, as the program gave them: instances of ``LitAPI``, or their names.
        server_options: Options of the whole server, by name.
        callbacks: Objects that receive the events of its endpoints and workers.
        middlewares: Classes, or pairs of a class and its keyword arguments, of Starlette's kind.
        info: The part of ``/info`` that the program gave; None if it gave none.
    """

    apis: list[Any]
    server_options: dict[str, Any]
    callbacks: list[Any]
    middlewares: list[Any]
    info: dict[str, Any] | None
    _profile: Profile
    _app: Any
    _active: Any

    @property
    def app(self) -> Any:
        """The FastAPI app in front of its endpoints."""

    @property
    def active_requests(self) -> int | None:
        """The number of requests that it is answering; None where they are not counted."""

    def _paths(self) -> list[str]: ...

    def _names(self) -> list[str]: ...
