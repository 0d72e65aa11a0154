"""Of each partition, the records that wait for their acknowledgement: how far one may commit."""

from faust.types import TP


class Pending:
    """Offsets by partition, from when a record is handed over until it is acknowledged.

    Faust derives the same from the acknowledged ones, and takes the committed offset for that of a
    record that is done, though it is that of the next: a single record that is not acknowledged
    right there is passed over, and without a committed offset any number of them.
    """

    def __init__(self) -> None:
        self._pending: dict[TP, dict[int, None]] = {}  # in the order of offsets
        self._next: dict[TP, int] = {}

    def handed_over(self, tp: TP, offset: int) -> None:
        """A record is on its way; offsets of a partition only rise, but need not be all there."""
        self._pending.setdefault(tp, {})[offset] = None
        self._next[tp] = offset + 1

    def acknowledged(self, tp: TP, offset: int) -> None:
        """A record is done; one that is not known, as after a rewind, changes nothing."""
        self._pending.get(tp, {}).pop(offset, None)

    def forget(self, tp: TP) -> None:
        """What was handed over will be handed over again, or to another member."""
        self._pending.pop(tp, None)
        self._next.pop(tp, None)

    def partitions(self) -> list[TP]:
        """Those of which anything was handed over."""
        return list(self._next)

    def committable(self, tp: TP) -> int | None:
        """The offset before which every record is acknowledged; None where none was handed over."""
        return next(iter(self._pending.get(tp, {})), self._next.get(tp))
