"""What a replica says of a router's credits, brought to its scheduler."""

from __future__ import annotations

import dataclasses
import math

import pytest
from router_world import report
from serve_samples import admit, sample_frame, sample_latency, sample_plan, sent

from serve_app.credit_grants import CreditAsk, CreditGrant
from serve_app.replica_limits import ReplicaLimits
from serve_app.router_credits import RouterCredits
from serve_app.scheduler import Scheduler

# Past the first moment, in which the scheduler has not looked at its queue yet.
NOW_S = 10.0


class Side:
    """A router's credits with a real scheduler of one replica, `near-0`."""

    def __init__(self):
        self.scheduler = Scheduler(sample_plan(), sample_latency())
        self.limits = ReplicaLimits(self.scheduler)
        self.credits = RouterCredits("router-1", self.scheduler, self.limits)
        self.limits.ready("near", ["near-0"])
        self.replica = self.scheduler._pools["near"].credits._replicas["near-0"]

    def granted(self, num_credits, share=0.5, urgent_s=0.1, other_s=0.3, now_s=NOW_S):
        """A word of the replica."""
        self.credits.granted("near", "near-0", CreditGrant(num_credits, share, urgent_s, other_s), now_s)


@pytest.fixture
def side():
    """A router's credits."""
    return Side()


def test_a_grant_limits_the_replica_and_tells_of_the_others_work(side):
    """Seconds from now become times of this router's clock."""
    side.granted(1)

    assert side.replica.max_others == 1
    assert side.replica.share == 0.5
    assert (side.replica.free_for_urgent_s, side.replica.free_for_other_s) == (NOW_S + 0.1, NOW_S + 0.3)
    assert side.scheduler._pools["near"].credits.num_devices == 0.5


def test_a_router_that_is_alone_again_is_free_again(side):
    """No limit, no work of others."""
    side.granted(1)
    side.credits.granted("near", "near-0", None, NOW_S)

    assert side.replica.max_others > 1
    assert (side.replica.share, side.replica.free_for_other_s) == (1.0, -math.inf)
    assert side.scheduler._pools["near"].credits.num_devices == 1.0


def test_after_a_refusal_nothing_is_sent_until_the_replica_says_something_else(side):
    """Else the same batch would come and go as fast as messages do; the next word, whatever it is, ends that."""
    side.granted(1)
    admit(side.scheduler, sample_frame("a", arrived_s=NOW_S))
    (batch,) = side.scheduler.decide(NOW_S).batches
    side.granted(1)
    side.credits.refused("near", "near-0")
    side.scheduler.batch_refused(batch.batch_id, NOW_S)
    assert side.scheduler.decide(NOW_S).batches == ()

    side.granted(1)
    assert sent(side.scheduler.decide(NOW_S)) == [["a"]]


def test_a_refusal_of_a_router_that_is_alone_ends_with_the_next_report(side):
    """The other one has just gone, and the reply said so."""
    side.credits.refused("near", "near-0")
    assert side.replica.max_others == 0
    side.credits.reported("near", [report("near-0")], NOW_S)
    assert side.replica.max_others > 1


def test_a_report_that_was_told_before_says_nothing_new(side):
    """When a replica dies the reports of the others are told once more; what they said of work is old by then."""
    old = dataclasses.replace(report("near-0"), grant=CreditGrant(1, 0.5, 0.1, 0.3))
    side.credits.reported("near", [old], NOW_S)
    side.granted(2)
    side.credits.reported("near", [old], NOW_S + 0.5)

    assert side.replica.max_others == 2
    assert side.replica.free_for_other_s == NOW_S + 0.3


def test_the_question_says_what_the_scheduler_would_have(side):
    """Its credits a replica, and the work that waits for each."""
    assert side.credits.ask("near") == CreditAsk("router-1", 2, 0.0)
    side.limits.ready("far", ["far-0", "far-1"])
    side.limits.limit("grant", "near", "near-0", 0)
    admit(side.scheduler, sample_frame("a", arrived_s=NOW_S))
    waiting_s = side.scheduler.loads()["near"].backlog_s
    assert waiting_s > 0
    assert side.credits.ask("near") == CreditAsk("router-1", 2, waiting_s)
