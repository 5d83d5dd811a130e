"""Where durable frames are kept until they are answered, and how many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serve_app.errors import InvalidPlanError

# Two hundred thousand VGA frames as PNG: a night of a hundred cameras that send one a minute.
DEFAULT_MAX_BYTES = 64 * 1024**3
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True, slots=True)
class SpoolRules:
    """What holds for the frames of durable cameras.

    Attributes:
        folder: of the SQLite file, on each machine; None: the user's state folder.
        redis: address of a Redis that all machines share, such as `redis://10.0.0.5:6379/0`; None: the SQLite file.
        max_bytes: what may lie there; beyond it a frame is refused.
        jpeg_quality: 1 to 100; None: lossless.
        max_age_s: a frame that is older is answered as expired.
        result_ttl_s: for how long results are kept.
        labels: of the machine that may run the spool, as for pools; so its file is always the same one.
    """

    folder: str | None = None
    redis: str | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    jpeg_quality: int | None = None
    max_age_s: float = 86_400.0
    result_ttl_s: float = 86_400.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder is not None and self.redis is not None:
            raise InvalidPlanError(
                f"spool: got folder {self.folder} and a redis, allowed is one: frames lie in one place"
            )
        if self.redis is not None and not self.redis.startswith(REDIS_SCHEMES):
            raise InvalidPlanError(
                "spool: redis: got an address of another kind (not shown: it may hold a password), allowed is one that "
                f"begins with {', '.join(REDIS_SCHEMES)}, such as redis://10.0.0.5:6379/0"
            )
