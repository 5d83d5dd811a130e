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
from serve_app.direct_calls import DirectlyCalled, ReplicaLine, own_actor
from serve_app.errors import InvalidFrameError


class Deployment(DirectlyCalled):
    """What stands in a replica."""

    async def doubled(self, number, refs):
        """An argument and the refs."""
        return 2 * number, refs

    async def name(self):
        """No argument at all."""
        return "here"

    async def refuse(self):
        """An error of ours."""
        raise InvalidFrameError("frame: got none")

    async def wait(self):
        """Never."""
        await asyncio.get_running_loop().create_future()


class LocalActor:
    """Serve's replica actor without Serve: calls the deployment's method that the metadata names, in this loop."""

    def __init__(self):
        self.handle_request = self
        self.calls = []

    def remote(self, metadata, *arguments):
        """Start a call; what it gives can be awaited, as a ref can."""
        self.calls.append((metadata, arguments))
        method = pickle.loads(metadata).call_method  # noqa: S301 (our own)
        return asyncio.get_running_loop().create_task(getattr(Deployment(), method)(*arguments))


def test_a_call_runs_the_method_with_its_arguments_and_gives_its_result():
    """Refs are the last argument, as the list that Ray must see; without refs there is none."""

    async def scenario():
        line = ReplicaLine(LocalActor())
        return await line.call("doubled", 21, refs=["ref"]), await line.call("name")

    assert asyncio.run(scenario()) == ((42, ["ref"]), "here")


def test_only_refs_travel_unpacked():
    """Ray must find the refs in the arguments; everything else is bytes, which it does not look into."""

    async def scenario():
        actor = LocalActor()
        await ReplicaLine(actor).call("doubled", 21, refs=("ref",))
        return actor.calls[0][1]

    packed, refs = asyncio.run(scenario())
    assert pickle.loads(packed) == ("doubled", (21,))  # noqa: S301
    assert refs == ["ref"]


def test_what_the_method_raises_reaches_the_caller():
    """With its class and its words."""

    async def scenario():
        await ReplicaLine(LocalActor()).call("refuse")

    with pytest.raises(InvalidFrameError, match="frame: got none"):
        asyncio.run(scenario())


def test_cancelling_a_call_cancels_it_there_but_nothing_that_it_has_set_off(monkeypatch):
    """A caller who gives up must not take the batch along in which frames of others run."""
    cancelled = []
    monkeypatch.setattr(direct_calls.ray, "cancel", lambda ref, *, recursive: cancelled.append((ref, recursive)))

    async def scenario():
        actor = LocalActor()
        caller = asyncio.create_task(ReplicaLine(actor).call("wait"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

    asyncio.run(scenario())
    assert [recursive for _, recursive in cancelled] == [False]


def test_a_call_that_is_waited_for_is_cancelled_when_it_takes_too_long(monkeypatch):
    """What runs on for nobody should end."""

    def never(ref, *, timeout):
        raise TimeoutError(f"{ref} {timeout}")

    cancelled = []
    monkeypatch.setattr(direct_calls.ray, "get", never)
    monkeypatch.setattr(direct_calls.ray, "cancel", lambda ref, *, recursive: cancelled.append((ref, recursive)))
    actor = SimpleNamespace(handle_request=SimpleNamespace(remote=lambda *_: "ref"))
    with pytest.raises(TimeoutError, match="ref 3"):
        ReplicaLine(actor).call_and_wait("name", timeout_s=3)
    assert cancelled == [("ref", False)]


def test_a_call_that_is_waited_for_gives_its_result(monkeypatch):
    """Unpacked."""
    monkeypatch.setattr(direct_calls.ray, "get", lambda _ref, *, timeout: pickle.dumps(timeout))
    actor = SimpleNamespace(handle_request=SimpleNamespace(remote=lambda *_: "ref"))
    assert ReplicaLine(actor).call_and_wait("name", timeout_s=3) == 3


def test_serves_replica_actor_takes_a_call_as_we_make_it():
    """`handle_request(metadata, *arguments)`, a coroutine; another signature in another Ray must fail here first."""
    method = ReplicaActor.handle_request
    assert inspect.iscoroutinefunction(method)
    bound = inspect.signature(method).bind("self", b"metadata", b"packed", ["ref"])
    assert list(bound.arguments.values()) == ["self", b"metadata", (b"packed", ["ref"])]
    assert next(iter(list(bound.arguments)[1:])) == "pickled_request_metadata"


def test_serves_replica_actor_hands_our_call_to_its_deployment():
    """The real code of the actor class around a stand-in for the deployment: metadata, arguments and answer arrive."""
    sent = []
    actor = SimpleNamespace(handle_request=SimpleNamespace(remote=lambda *arguments: sent.append(arguments)))
    ReplicaLine(actor)._start("infer", ("request",), ["ref"])
    seen = []

    class Deployment:
        async def handle_request(self, metadata, *arguments, **named):
            seen.append((metadata, arguments, named))
            return "reply"

    replica = object.__new__(ReplicaActor)
    replica._replica_impl = Deployment()
    answer = asyncio.run(replica.handle_request(*sent[0]))

    assert answer == "reply"
    ((metadata, arguments, named),) = seen
    packed, refs = arguments
    assert (pickle.loads(packed), refs, named) == (("infer", ("request",)), ["ref"], {})  # noqa: S301
    assert isinstance(metadata, RequestMetadata)
    assert (metadata.call_method, metadata.is_streaming) == ("call_directly", False)
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
