"""The published client as the suite sees it: which methods it has, and which route each of them calls."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import copass_core
from copass_core import ApiKeyAuth, BaseResource, CopassClient, RequestContext

Method = Callable[..., Awaitable[Any]]

# Exported by the package, asynchronous, and neither a resource nor a helper above one: how the client sends requests.
PLUMBING = {"AuthProvider", "ApiKeyAuthProvider", "BearerAuthProvider", "HttpClient", "retry_with_backoff"}
# Methods of helpers that send nothing.
LOCAL = {"BaseDataSource.start", "BaseDataSource.stop"}


def methods(client: CopassClient) -> dict[str, Method]:
    """Every public method that sends a request, by the name a caller writes after `client.`."""
    return dict(_methods(client, ""))


def _methods(holder: object, prefix: str) -> Iterator[tuple[str, Method]]:
    for name, resource in vars(holder).items():
        if isinstance(resource, BaseResource):
            for method, function in inspect.getmembers(resource, inspect.iscoroutinefunction):
                if not method.startswith("_"):
                    yield f"{prefix}{name}.{method}", function
            yield from _methods(resource, f"{prefix}{name}.")


def composites() -> set[str]:
    """Every public asynchronous helper that is built from the methods of resources."""
    found: set[str] = set()
    for name in set(copass_core.__all__) - PLUMBING:
        exported = getattr(copass_core, name)
        if inspect.iscoroutinefunction(exported):
            found.add(name)
        elif inspect.isclass(exported) and not issubclass(exported, BaseResource):
            own = (member for member, value in vars(exported).items() if inspect.iscoroutinefunction(value))
            found.update(f"{name}.{member}" for member in own if not member.startswith("_"))
    return found - LOCAL


def required_arguments(method: Method) -> list[str]:
    """The parameters without a default."""
    parameters = inspect.signature(method).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty]


async def routes() -> dict[str, str]:
    """What each method sends, as `METHOD /path/{parameter}`: learned by calling it and stopping before the network."""
    client = CopassClient(auth=ApiKeyAuth("olk_none"), api_url="http://unused.invalid", on_request=[_capture])
    return {name: await _route(method) for name, method in methods(client).items()}


class _Captured(Exception):
    def __init__(self, route: str) -> None:
        super().__init__(route)
        self.route = route


def _capture(request: RequestContext) -> None:
    raise _Captured(f"{request.method} {request.path}")


async def _route(method: Method) -> str:
    arguments: dict[str, Any] = {name: f"{{{name}}}" for name in required_arguments(method)}
    try:
        await method(**arguments)
    except _Captured as captured:
        return captured.route
    raise AssertionError(f"{method.__qualname__} sent nothing")
