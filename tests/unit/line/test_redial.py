from __future__ import annotations

from towline.line.redial import AT_ONCE, GAP_S, Redial


def test_nothing_is_dialled_while_nothing_is_wanted() -> None:
    assert Redial().wait_s(0.0) is None


def test_at_once_then_after_a_gap_for_as_long_as_it_is_wanted() -> None:
    redial = Redial(gap=lambda: 0.4)
    redial.want(100.0)
    times, now = [], 100.0
    while now < 102.0:
        wait_s = redial.wait_s(now)
        assert wait_s is not None
        now += wait_s
        times.append(round(now, 3))
        redial.dialled(now)
        redial.ended()
    assert times == [100.0, 100.4, 100.8, 101.2, 101.6, 102.0]


def test_a_dial_that_hangs_does_not_hold_back_the_next_but_four_are_too_many() -> None:
    redial = Redial(gap=lambda: 0.5)
    redial.want(0.0)
    for number in range(AT_ONCE):
        assert redial.wait_s(number * 0.5) == 0.0
        redial.dialled(number * 0.5)
    assert redial.wait_s(99.0) is None
    redial.ended()
    assert redial.wait_s(99.0) == 0.0


def test_a_carrier_that_answers_ends_it() -> None:
    redial = Redial()
    redial.want(0.0)
    redial.settle()
    assert redial.wait_s(9.0) is None and not redial.wanted


def test_another_network_is_dialled_at_once() -> None:
    redial = Redial(gap=lambda: 0.5)
    redial.want(0.0)
    redial.dialled(0.0)
    assert redial.wait_s(0.1) == 0.4
    redial.hurry(0.1)
    assert redial.wait_s(0.1) == 0.0


def test_gaps_differ_so_that_clients_do_not_come_in_step() -> None:
    redial = Redial()
    redial.want(0.0)
    gaps = set()
    for _ in range(50):
        redial.dialled(0.0)
        redial.ended()
        gaps.add(redial.wait_s(0.0))
    assert len(gaps) > 10
    assert all(gap is not None and GAP_S[0] <= gap <= GAP_S[1] for gap in gaps)
