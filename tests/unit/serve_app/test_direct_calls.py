"""Calls to one replica's actor: what Serve's own actor class must look like for them. Starts no Ray."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from types import SimpleNamespace

import pytest
from ray.serve._private.common import RequestMetadata
from ray.serve._private.replica import ReplicaActor

from serve_app import direct_calls
from serve_app.direct_calls import ReplicaLine, own_actor


class RecordingActor:
    """Notes how `handle_request.remote` was called."""

    def __init__(self):
        self.handle_request = self
        self.calls = []

    def remote(self, *arguments):
        """One call; its ref is its number."""
        self.calls.append(arguments)
        return f"ref-{len(self.calls)}"


def test_a_call_goes_to_the_actor_with_its_arguments_and_gives_the_ref():
    """The method travels in the metadata, the arguments beside it as they are: refs in a list stay refs."""
    actor = RecordingActor()
    line = ReplicaLine(actor)
    refs = [object()]
    assert line.call("infer", "request", refs) == "ref-1"
    assert line.call("report") == "ref-2"

    (first_metadata, *first), (second_metadata, *second) = actor.calls
    assert (first, second) == (["request", refs], [])
    assert first[1] is refs
    methods = [pickle.loads(each).call_method for each in (first_metadata, second_metadata)]  # noqa: S301 (our own)
    assert methods == ["infer", "report"]


def test_metadata_is_pickled_once_a_method():
    """It is the same for every call, and the router makes thousands."""
    actor = RecordingActor()
    line = ReplicaLine(actor)
    for _ in range(3):
        line.call("infer")
    assert len({id(metadata) for (metadata,) in actor.calls}) == 1


def test_what_the_actor_raises_at_once_reaches_the_caller():
    """Nothing is retried here."""

    def refuse(*_):
        raise OSError("no route")

    actor = SimpleNamespace(handle_request=SimpleNamespace(remote=refuse))
    with pytest.raises(OSError, match="no route"):
        ReplicaLine(actor).call("infer")


def test_serves_replica_actor_takes_a_call_as_we_make_it():
    """`handle_request(metadata, *arguments)`, a coroutine; another signature in another Ray must fail here first."""
    method = ReplicaActor.handle_request
    assert inspect.iscoroutinefunction(method)
    bound = inspect.signature(method).bind("self", b"metadata", "request", ["ref"])
    assert list(bound.arguments.values()) == ["self", b"metadata", ("request", ["ref"])]
    assert next(iter(list(bound.arguments)[1:])) == "pickled_request_metadata"


def test_serves_replica_actor_hands_our_call_to_its_deployment():
    """The real code of the actor class around a stand-in for the deployment: metadata, arguments and answer arrive."""
    actor = RecordingActor()
    ReplicaLine(actor).call("infer", "request", ["ref"])
    seen = []

    class Deployment:
        async def handle_request(self, metadata, *arguments, **named):
            seen.append((metadata, arguments, named))
            return "reply"

    replica = object.__new__(ReplicaActor)
    replica._replica_impl = Deployment()
    answer = asyncio.run(replica.handle_request(*actor.calls[0]))

    assert answer == "reply"
    ((metadata, arguments, named),) = seen
    assert (arguments, named) == (("request", ["ref"]), {})
    assert isinstance(metadata, RequestMetadata)
    assert (metadata.call_method, metadata.is_streaming) == ("infer", False)
    assert (metadata.is_http_request, metadata.is_grpc_request) == (False, False)


def test_request_metadata_takes_what_we_give_it():
    """These three names, and no other without a default."""
    parameters = inspect.signature(RequestMetadata).parameters
    needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert needed <= {"request_id", "internal_request_id", "call_method"} <= set(parameters)


def test_a_replica_gives_out_the_actor_that_it_runs_in(monkeypatch):
    """Ray's own handle of it, not a copy."""
    actor = object()
    context = SimpleNamespace(current_actor=actor)
    monkeypatch.setattr(direct_calls, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    assert own_actor() is actor
