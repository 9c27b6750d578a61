"""The backward pass on stage models that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from bdtr.backward.induction import BackwardPass, Decisions, Policy, backward, stage_value, together

Q = np.array([[[1.0, 3.0], [5.0, 5.0]], [[2.5, 0.5], [9.0, 9.0]]])  # action, unit, sample
FEASIBLE = np.array([[True, True], [True, False]])


def test_recommended_is_the_best_mean_and_optimal_the_best_of_each_draw():
    value, action = stage_value(Q, FEASIBLE, "recommended")
    assert action.tolist() == [0, 0]
    assert value.tolist() == [[1.0, 3.0], [5.0, 5.0]]
    value, _ = stage_value(Q, FEASIBLE, "optimal")
    assert value.tolist() == [[2.5, 3.0], [5.0, 5.0]]
    value, action = stage_value(Q, FEASIBLE, "regime", np.array([1, -1]))
    assert action.tolist() == [1, 0]
    assert value.tolist() == [[2.5, 0.5], [5.0, 5.0]]


def test_lower_is_better_mirrors_everything():
    for kind in ("recommended", "optimal"):
        up, chosen = stage_value(Q, FEASIBLE, kind)
        down, same = stage_value(-Q, FEASIBLE, kind, higher_is_better=False)
        assert np.array_equal(up, -down)
        assert np.array_equal(chosen, same)


def three_stages(samples: int):
    """Units 0..5; stage 2 is among units 0..3 only; Q-values are numbers set by hand."""
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(2, 6, samples)) for _ in range(3)]
    among = [np.ones(6, bool), np.array([1, 1, 1, 1, 0, 0], bool), np.ones(6, bool)]
    rewards = [np.full(6, 10.0), np.full(6, 100.0), np.zeros(6)]
    decisions = Decisions(among, [np.ones((6, 2), bool)] * 3, rewards, np.arange(6.0), True)
    return tables, decisions


@pytest.mark.parametrize("kind", ["recommended", "optimal"])
def test_responses_are_reward_plus_the_value_of_the_later_stage(kind):
    samples = 7
    tables, decisions = three_stages(samples)
    seen = {}

    def draw_stage(k, responses, later):
        (own,) = responses
        seen[k] = np.concatenate([values for _, values in own])
        assert later[0] is tables[k + 1]
        return [tables[k]]

    fitted = [np.arange(6)] * 3
    (draws,) = backward(
        decisions, [Policy(kind, kind)], tables[2], fitted, draw_stage,
        lambda k, table, units, sites: table[:, units], samples,
    )  # fmt: skip
    v3, _ = stage_value(tables[2], np.ones((6, 2), bool), kind)
    v2, _ = stage_value(tables[1], np.ones((6, 2), bool), kind)
    assert np.allclose(seen[1], 100 + v3)
    # Units 4 and 5 have no decision at stage 2: they carry reward and later value through.
    expected = 10 + np.where(decisions.among[1][:, None], v2, 100 + v3)
    assert np.allclose(seen[0], expected)
    assert draws[2] is tables[2]


def test_draws_stay_paired_between_stages():
    """The response of draw s comes from draw s of the later stage and no other."""
    samples = 5
    q = np.broadcast_to(np.arange(samples, dtype=float), (2, 3, samples))
    decisions = Decisions(
        [np.ones(3, bool)] * 2, [np.ones((3, 2), bool)] * 2, [np.zeros(3)] * 2, np.zeros(3), True
    )
    seen = []

    def draw_stage(k, responses, later):
        seen.extend(values for _, values in responses[0])
        return [q]

    backward(
        decisions,
        [Policy()],
        q,
        [np.arange(3)] * 2,
        draw_stage,
        lambda k, t, u, sites: t[:, u],
        samples,
    )
    assert np.array_equal(np.concatenate(seen), np.tile(np.arange(samples, dtype=float), (3, 1)))


def test_policies_that_are_drawn_together_meet_the_same_units_block_by_block():
    samples = 4
    tables, decisions = three_stages(samples)
    policies = [Policy(), Policy("optimal", "optimal")]
    blocks = []

    def draw_stage(k, responses, later):
        for at, values in together(responses):
            blocks.append((k, at, [v.mean() for v in values]))
        return [tables[k], tables[k]]

    draws = backward(
        decisions, policies, tables[2], [np.arange(6)] * 3, draw_stage,
        lambda k, table, units, sites: table[:, units], samples,
    )  # fmt: skip
    assert [k for k, _, _ in blocks] == [1, 0]
    assert all(at == slice(0, 6) and best >= frozen for _, at, (frozen, best) in blocks)
    assert len(draws) == 2


def test_mean_of_maxima_is_not_below_the_maximum_of_means():
    rng = np.random.default_rng(1)
    q = rng.normal(size=(3, 50, 200))
    everything = np.ones((50, 3), bool)
    best, _ = stage_value(q, everything, "optimal")
    frozen, _ = stage_value(q, everything, "recommended")
    assert np.all(best.mean(axis=1) >= frozen.mean(axis=1))
    # The order matters: averaging before maximising is the frozen rule, not the draw-wise one.
    assert np.all(best.mean(axis=1) > q.mean(axis=2).max(axis=0) + 0.1)


def test_an_untailored_policy_chooses_on_average_over_sites():
    """It takes the action of the best average Q-value, and has that action's value at its own site."""
    at_site = np.array(
        [[[1.0, 3.0], [1.0, 1.0]], [[2.0, 4.0], [0.0, 0.0]]]
    )  # (action, unit, sample)
    average = np.array([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [2.0, 2.0]]])
    decisions = Decisions(
        [np.ones(2, bool)], [np.ones((2, 2), bool)], [np.zeros(2)], np.zeros(2), True
    )
    policy = Policy("untailored", "untailored")
    done = BackwardPass(
        decisions, policy, lambda k, u: at_site[:, u], lambda k, u: average[:, u], 2
    )
    assert done.continuation(0, np.arange(2)).tolist() == [[1.0, 3.0], [0.0, 0.0]]


def test_blocks_cover_all_units_once():
    def q_values(k, units):
        return np.zeros((2, len(units), 4))

    decisions = Decisions(
        [np.ones(10, bool)], [np.ones((10, 2), bool)], [np.zeros(10)], np.zeros(10), True
    )
    done = BackwardPass(decisions, Policy(), q_values, q_values, 2_000_000)
    blocks = list(done.blocks(np.arange(10)))
    assert len(blocks) > 1
    assert np.concatenate(blocks).tolist() == list(range(10))
