"""Who speaks, of several aligners of the same cohorts: whoever claimed them last on `S.control`.

That topic has one partition, so that all read the claims in one order and need no further service.
A claim carries an epoch above all before it. Of two with equal epochs the first counts.
"""

from schemas.messages import Control
from streams.align_share import Share
from streams.supervise import TryAgain


class OvertakenError(RuntimeError):
    """Another aligner makes the frames now; what this one still says is dropped everywhere."""


class StandsByAgain(OvertakenError, TryAgain):
    """As above, where a new start would stand by."""


class Seat:
    """What the claims on `S.control` say about one aligner.

    Args:
        share, cohorts: the cohorts that it would speak for, of how many.
        me: a name that no other aligner has.
        least: above the epochs of all frames that are there.
    """

    def __init__(self, share: Share, cohorts: int, me: str, least: int) -> None:
        self.share, self.me = share, me
        self.epoch: int | None = None  # of the claim by which it speaks, or spoke
        self.holder = ""  # who claimed last
        self.refused = False  # somebody was first with the epoch that was claimed last
        self._own = share.cohorts(cohorts)
        self._newest = least - 1
        self._claimed: int | None = None

    @property
    def holds(self) -> bool:
        """Whether it is the one that speaks."""
        return self.epoch is not None and self.epoch == self._newest

    @property
    def overtaken(self) -> bool:
        """Whether another one speaks in its place."""
        return self.epoch is not None and self.epoch < self._newest

    @property
    def pending(self) -> bool:
        """Whether it has claimed, and did not read its claim yet."""
        return self._claimed is not None

    def claim(self) -> Control:
        """A claim, to be written to `S.control`; it counts when `heard` was given it."""
        self._claimed, self.refused = self._newest + 1, False
        return Control("align", 0, self.share.name, by=self.me, epoch=self._claimed)

    def heard(self, claim: Control) -> None:
        """Takes the claims of everybody, one's own among them, in the order of `S.control`."""
        epoch, share = claim.epoch, Share.named(claim.entity)
        if epoch is None or share is None:
            return
        if claim.by == self.me:
            if epoch == self._claimed:
                self._claimed, self.refused = None, epoch <= self._newest
                if not self.refused:
                    self.epoch = self._newest = epoch
        elif epoch > self._newest and (share.cohorts(len(self._own)) & self._own).any():
            self._newest, self.holder = epoch, claim.by
