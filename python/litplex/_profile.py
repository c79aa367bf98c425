"""The profile of a program: the behaviour of litplex, or of the framework it was written for.

A model and a server each have a profile. The rest of the SDK reads it where the behaviours differ,
and names no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from litplex import _arguments
from litplex._arguments import ServerArguments


def _no_key(variable: str) -> str | None:
    return None


def _own_presentation(server: Any, options: Mapping[str, Any]) -> None:
    return None


@dataclass(frozen=True)
class Profile:
    """The behaviour of one kind of program. The defaults are those of ``import litplex``.

    Attributes:
        name: The name of the framework, as messages print it.
        reads_server_arguments: Sorts the keywords of ``LitServer``, given the paths of its
            endpoints.
        reads_run_arguments: Returns the server options among the keywords of ``run_servers``, and a
            sentence for each invalid keyword.
        server_defaults: Server options for programs that do not set them.
        yielding: For each option that names a built-in path: that path, and the value that the
            option gets if an endpoint has the path. Any other such endpoint is refused.
        checks_paths_early: Whether the paths of a ``LitServer`` are checked against the built-in
            paths when it is created, not when it runs.
        shares_paths: Whether several endpoints may have a path whose requests name a model.
        resolves_paths_by_file: Whether relative paths start at the directory of the program's
            file, not at the working directory.
        warns_of_spec_path: Whether to warn of a path that needs another ``base_url`` of clients.
        has_model_options: Whether ``max_concurrency`` and ``cost`` of a model are options and hooks
            of litplex. Otherwise these names are the program's own.
        checks_hooks_early: Whether a hook that a model lacks is an error before ``setup`` has run.
        sends_bytes_as_text: Whether a response of ``bytes`` is sent as a JSON string.
        writes_client: Whether ``run`` writes ``client.py`` unless the program declines.
        load_failure: The text of the ``RuntimeError`` of ``run`` if a model did not load. None:
            ``run`` ends the program with the exit status of the server.
        program_key: Returns the key that the program has set for a variable of the environment.
        presentation: Returns how the server presents itself, as ``crates/config/presentation.rs``
            describes it, given the first server and the options of all.
    """

    name: str = "litplex"
    reads_server_arguments: Callable[[Mapping[str, Any], list[str]], ServerArguments] = (
        _arguments.read_server_arguments
    )
    reads_run_arguments: Callable[[Mapping[str, Any]], tuple[dict[str, Any], list[str]]] = (
        _arguments.read_run_arguments
    )
    server_defaults: Mapping[str, Any] = field(default_factory=dict)
    yielding: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    checks_paths_early: bool = False
    shares_paths: bool = True
    resolves_paths_by_file: bool = True
    warns_of_spec_path: bool = False
    has_model_options: bool = True
    checks_hooks_early: bool = True
    sends_bytes_as_text: bool = False
    writes_client: bool = False
    load_failure: str | None = None
    program_key: Callable[[str], str | None] = _no_key
    presentation: Callable[[Any, Mapping[str, Any]], dict[str, Any] | None] = _own_presentation

    def yielded(self, paths: list[str]) -> dict[str, Any]:
        """Returns the options that leave these paths to the endpoints of the program."""
        return {name: value for name, (path, value) in self.yielding.items() if path in paths}


#: The profile of programs that import ``litplex``.
NATIVE = Profile()
