"""How the cohorts of a tick share its deadline."""


class Turns:
    """Shares a tick's deadline among the cohorts whose frames come at the same time.

    The first frame of a tick may not spend what the others need: each gets an equal part of the
    time that is left until the deadline, counted from the receipt of the tick's first frame.
    """

    def __init__(self, deadline_us: int) -> None:
        self.deadline_us = deadline_us
        self._tick: int | None = None
        self._begun_ns = 0
        self._done = 0

    def begin(self, tick: int, now_ns: int, cohorts: int) -> int:
        """When the first frame of `tick` came, ns; `cohorts` come each tick."""
        if tick != self._tick or self._done >= cohorts:
            self._tick, self._begun_ns, self._done = tick, now_ns, 0
        return self._begun_ns

    def take(self, tick: int, now_ns: int, cohorts: int, more_us: int = 0) -> int:
        """Microseconds that the next frame, of `tick`, may plan for.

        `cohorts` come each tick;  more_us: to be spent beyond the deadline.
        """
        self.begin(tick, now_ns, cohorts)
        left = self.deadline_us + more_us - (now_ns - self._begun_ns) // 1_000
        share = left // max(1, cohorts - self._done)
        self._done += 1
        return max(0, share)

    def all_taken(self, cohorts: int) -> bool:
        """Whether each of `cohorts` has had its turn at this tick."""
        return self._done >= cohorts
