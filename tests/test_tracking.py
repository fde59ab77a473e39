"""Who is who: toy bodies on known paths, and two real dancers who cross."""

import numpy as np
import pytest
from animate_anywhere.vision import tracking
from animate_anywhere.vision.tracking import Identities, Sighting
from scipy.optimize import linear_sum_assignment

FRAMES = 40
# A standing body, 200 px tall, the middle of its neck at (0, 0): right side, then mirrored.
RIGHT = [(-20, 0), (-28, 40), (-30, 75)], [(-12, 75), (-13, 115), (-14, 165)]
ARM, LEG = (np.array(part, float) for part in RIGHT)
MIRROR = np.array([-1, 1])
HEAD = [(-4, -30), (4, -30), (-9, -27), (9, -27)]
BODY = np.concatenate([[(0, -25), (0, 0)], ARM, ARM * MIRROR, LEG, LEG * MIRROR, HEAD])


def shirt(bin_of_a):
    """Histograms of one colour."""
    colours = np.zeros((3, tracking.BINS))
    colours[:, bin_of_a] = 1
    return colours


def seen_at(x, y=200.0, colours=None, seed=0, score=1.0, size=1.0):
    """A body at (x, y), found to within 1 px."""
    noise = np.random.default_rng(seed).normal(0, 1, BODY.shape)
    return Sighting(np.column_stack([BODY * size + [x, y] + noise, np.ones(18)]), colours, score)


def walk(paths, colours, most=2, hidden=25.0):
    """Numbers [T, len(paths)] of the people on ``paths`` of x; later ones hide earlier ones, who are -1 there."""
    identities = Identities(most)
    numbers = np.full((FRAMES, len(paths)), -1)
    for index in range(FRAMES):
        places = [path[index] for path in paths]
        shown = [k for k, x in enumerate(places) if all(abs(x - other) > hidden for other in places[k + 1 :])]
        sightings = {k: seen_at(places[k], colours=colours[k], seed=100 * index + k) for k in shown}
        shuffled = np.random.default_rng(index).permutation(shown)
        for number, sighting in identities.meet(index, [sightings[k] for k in shuffled]):
            numbers[index, next(k for k in shown if sightings[k] is sighting)] = number
    return numbers


def keeps_identities(numbers):
    return all(len(set(column[column >= 0])) == 1 for column in numbers.T) and len(set(numbers[0])) == numbers.shape[1]


@pytest.mark.parametrize("speed", [4.0, 8.0, 15.0])
@pytest.mark.parametrize("colours", [(None, None), (shirt(3), shirt(3)), (shirt(3), shirt(8))])
def test_two_people_who_cross_keep_their_numbers(speed, colours):
    x = np.arange(FRAMES) * speed
    middle = x[-1] / 2
    numbers = walk([200 + x, 200 + 2 * middle - x], colours)
    assert keeps_identities(numbers)
    assert (numbers[-1] >= 0).all(), "both are there again after they crossed"


def test_who_turns_back_behind_another_is_known_by_the_shirt():
    """Motion says that they crossed; they did not. Without the shirts nothing could tell."""
    away = np.abs(np.arange(FRAMES) - FRAMES // 2) * 8.0
    assert keeps_identities(walk([400 - away, 400 + away], (shirt(3), shirt(8))))


def test_somebody_who_passes_in_front_does_not_take_the_lead_along():
    """Only one person is followed, and for a while only the other one, in another shirt, is to be seen."""
    identities = Identities(1)
    taken = []
    for index in range(FRAMES):
        lead, other = 300.0, 600.0 - 15 * index
        sightings = [seen_at(other, colours=shirt(8), seed=index)]
        if abs(lead - other) > 25:
            sightings.append(seen_at(lead, colours=shirt(3), seed=50 + index, score=2.0))
        taken.append(next(iter(identities.meet(index, sorted(sightings, key=lambda s: -s.score))))[1])
    assert all(sighting.colours[1, 3] == 1 for sighting in taken[:15] + taken[25:])


def test_a_person_who_is_away_for_a_moment_comes_back_as_the_same():
    identities = Identities(2)
    identities.meet(0, [seen_at(200), seen_at(500)])
    for index in range(1, 6):
        identities.meet(index, [seen_at(500 + 3 * index)])
    assert [number for number, _ in identities.meet(6, [seen_at(205), seen_at(518)])] == [0, 1]


def test_a_stranger_takes_a_place_only_when_its_owner_is_forgotten():
    identities = Identities(1)
    identities.meet(0, [seen_at(200, colours=shirt(2))])
    stranger = seen_at(900, colours=shirt(9))
    assert not identities.meet(1, [stranger])
    assert not identities.meet(tracking.FORGET, [stranger])
    assert identities.meet(tracking.FORGET + 1, [stranger]) == [(0, stranger)]


def test_somebody_who_turns_round_is_still_the_same():
    """The back of a shirt has other colours; who is where the person should be is the person."""
    identities = Identities(1)
    colours = [shirt(3) if index < 10 else shirt(8) for index in range(FRAMES)]
    met = [identities.meet(index, [seen_at(300 + 2 * index, colours=colours[index])]) for index in range(FRAMES)]
    assert all(met)


@pytest.mark.parametrize(
    ("lead", "first"), [("clearest", 1), ("largest", 2), ("leftmost", 0), ("rightmost", 2), ("point", 1)]
)
def test_the_lead_is_chosen_by_the_rule(lead, first):
    sightings = [seen_at(100, score=0.7), seen_at(400, score=0.9), seen_at(700, score=0.8, size=1.3)]
    identities = Identities(1, lead, np.array([420.0, 200.0]))
    ((number, sighting),) = identities.meet(0, sightings)
    assert number == 0 and sighting is sightings[first]


def test_people_are_ordered_by_the_rule_at_the_end():
    identities = Identities(3, "leftmost")
    identities.meet(0, [seen_at(500)])
    identities.meet(1, [seen_at(500), seen_at(100), seen_at(300)])
    seen = np.ones((2, 3), bool)
    assert [identities.people[number].start[0] for number in identities.order(seen)] == pytest.approx(
        [100, 300, 500], abs=2
    )
    clearest = Identities(2)
    clearest.meet(0, [seen_at(100, score=0.9), seen_at(500, score=0.5)])
    assert clearest.order(np.array([[True, True], [False, True]])) == [1, 0]


def test_two_sightings_of_one_body_are_one():
    twice = [seen_at(300, seed=1, score=0.6), seen_at(304, seed=2, score=0.9), seen_at(390, seed=3)]
    assert [sighting.score for sighting in tracking.distinct(twice)] == [1.0, 0.9]


def test_assignment_has_the_least_sum():
    random = np.random.default_rng(0)
    for _ in range(200):
        costs = random.random(random.integers(1, 7, 2)).round(1)
        costs[random.random(costs.shape) < 0.3] = tracking.OUT_OF_REACH
        rows, columns = linear_sum_assignment(costs)
        pairs = tracking.assign(costs)
        assert len({r for r, _ in pairs}) == len({c for _, c in pairs}) == len(pairs) == min(costs.shape)
        assert sum(costs[pair] for pair in pairs) == pytest.approx(costs[rows, columns].sum())


def test_colours_are_those_of_the_torso():
    frame = np.zeros((400, 400, 3), np.float32)
    frame[190:290, 170:230] = 0.8, 0.1, 0.1
    red = tracking.torso_colours(frame, seen_at(200).joints)
    assert (
        tracking.colour_difference(
            red, tracking.torso_colours(np.full_like(frame, (0.8, 0.1, 0.1)), seen_at(200).joints)
        )
        < 0.2
    )
    assert tracking.colour_difference(red, tracking.torso_colours(np.zeros_like(frame), seen_at(200).joints)) > 0.6
    hidden = seen_at(200).joints
    hidden[2] = 0
    assert tracking.torso_colours(frame, hidden) is None
