"""When a batch that is not answered is overdue: several times later than predicted, and not by a hair.

Bounds: a batch is doubted at most `patience_s` after it should have ended; its frames then go to other replicas while
their deadlines allow. A frame for which no other attempt is left hopes for the late answer until `LATE_GRACE_S` after
its deadline (or after its batch was doubted, where that is later), and then ends: no caller waits for ever.
"""

from __future__ import annotations

# A stall of a shared machine (another process, a garbage collection, a driver) takes tenths of a second and is no
# failure; a replica that has not answered for longer has left its device idle long enough to be worth a retry.
OVERDUE_FLOOR_S = 0.5
# Of the predicted run and the way there and back. A replica ten times slower than its model is doubted, an ordinary
# batch is not: on busy CPUs one in ten thousand takes three times as long.
OVERDUE_RATIO = 4.0
# Where batches scatter so much that the ratio alone would doubt sound ones.
OVERDUE_SPREADS = 8.0
# A critical batch is tried elsewhere after half of the time that is left for it, so that the other half is for the
# second attempt; but not before a wait that is no news: two copies of a batch cost twice the device.
HEDGE_SHARE = 0.5
HEDGE_FLOOR_S = 0.1
HEDGE_RATIO = 2.0
# A late answer is better than none for so long after the deadline.
LATE_GRACE_S = 1.0
# A decision that comes so much later than it was due means that we have slept, not the replicas: answers may lie
# unread. They get as long again.
STALL_S = 0.1


def patience_s(run_s: float, spread_s: float, around_s: float) -> float:
    """How long after its predicted end a batch is waited for.

    Args:
        run_s: its predicted seconds on the device.
        spread_s: how far they scatter.
        around_s: what a batch takes beside its device.
    """
    return max(OVERDUE_FLOOR_S, OVERDUE_RATIO * (run_s + around_s), OVERDUE_SPREADS * spread_s)


def critical_patience_s(end_s: float, last_start_s: float, run_s: float, patient_s: float, around_s: float) -> float:
    """The same for a batch of critical frames: as long as a second attempt can still be in time, if any can.

    Args:
        end_s: when it is predicted to end.
        last_start_s: when a second attempt must begin.
        run_s: its predicted seconds on the device.
        patient_s: how long any other batch like it is waited for.
        around_s: what a batch takes beside its device.
    """
    floor_s = max(HEDGE_FLOOR_S, HEDGE_RATIO * (run_s + around_s))
    left_s = last_start_s - end_s
    if left_s < floor_s:
        return patient_s
    return min(patient_s, max(floor_s, HEDGE_SHARE * left_s))
