"""What all channels together may have granted never exceeds the budget."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis.strategies import integers, lists, tuples

from towline.transport.credit import AGENT_INITIAL_BYTES, WINDOW_MAX_BYTES, Budget, Grants


@example(0, [(0, 8354), (0, -1), (0, 8030)])
@given(
    integers(0, 8 * 1024 * 1024),
    lists(tuples(integers(0, 5), integers(-1, 3 * 1024 * 1024)), max_size=60),
)
def test_never_above_the_budget_and_all_of_it_comes_back(
    total: int, steps: list[tuple[int, int]]
) -> None:
    """Channels consume (or end, at -1) in any order, also after their end."""
    budget = Budget(total)
    channels = [Grants(budget) for _ in range(6)]
    ahead = [AGENT_INITIAL_BYTES] * 6  # what each other side may have sent unread
    ended = set()
    for n, count in steps:
        if count < 0:
            channels[n].end()
            ended.add(n)
            continue
        count = min(count, ahead[n])  # nobody reads more than was sent
        ahead[n] += channels[n].consumed(count) - count
        assert 0 <= budget.free_bytes <= total
        assert ahead[n] <= WINDOW_MAX_BYTES
    open_ = [each for n, each in enumerate(ahead) if n not in ended]
    assert sum(max(0, each - AGENT_INITIAL_BYTES) for each in open_) <= total
    for channel in channels:
        channel.end()
    assert budget.free_bytes == total


def test_a_bulk_stream_grows_to_the_largest_window() -> None:
    grants = Grants(Budget())
    ahead = AGENT_INITIAL_BYTES
    for _ in range(2000):
        ahead += grants.consumed(16 * 1024) - 16 * 1024
    assert ahead > WINDOW_MAX_BYTES * 3 // 4


def test_bytes_read_after_the_end_take_nothing() -> None:
    """Found in review: what a closing socket still wrote out took budget for good."""
    budget = Budget()
    before = budget.free_bytes
    grants = Grants(budget)
    grants.end()
    for _ in range(10):
        grants.consumed(AGENT_INITIAL_BYTES)
    assert budget.free_bytes == before
