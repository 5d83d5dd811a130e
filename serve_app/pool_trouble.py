"""What Serve says of a pool without replicas, cut to what tells: the error of a constructor or of a health check."""

from __future__ import annotations


def telling_line(message: str) -> str:
    """The line of a message that names the error: the last of a traceback, which comes first to nobody."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line for line in lines if "Error:" in line or "Error(" in line]
    return (told or lines or [""])[-1]
