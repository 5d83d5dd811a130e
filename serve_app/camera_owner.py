"""Which router serves a camera. All who know the same routers find the same one; nothing is shared or remembered."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import blake2b

from serve_app.results import RouterReport


def owner(camera: str, routers: Collection[str]) -> str:
    """The router that a camera's frames go to.

    Algorithm: rendezvous hashing (Thaler and Ravishankar, 1998): each router has a weight for each camera, and the
    heaviest one owns it. A router that comes takes from each other one the cameras that it is heavier for, 1 of n in
    all; one that goes leaves only its own to the others. Linear in the number of routers.

    Args:
        camera: its name.
        routers: their names, in any order.

    Raises:
        ValueError: there is no router.
    """
    if len(routers) == 1:
        return next(iter(routers))
    # Python's own hash differs from process to process.
    return max(routers, key=lambda router: (_weight(camera, router), router))


def owning_routers(reports: Iterable[RouterReport]) -> tuple[str, ...]:
    """The routers that own cameras, by name: the ready ones of the highest revision that has any.

    While none is ready, as after the start, those of the highest revision: frames wait there for the first replica.
    """
    known = list(reports)
    candidates = [report for report in known if report.is_ready] or known
    newest = max((report.revision for report in candidates), default=0)
    return tuple(sorted(report.router for report in candidates if report.revision == newest))


def _weight(camera: str, router: str) -> bytes:
    """Equally long for all, so they compare as numbers do; no name can be mistaken for the end of another one."""
    key = blake2b(router.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return blake2b(camera.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
