"""Steps planned ahead."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from training_setup import lengths

from lmtasks.training.common.steps import plan_steps


@given(lengths, st.integers(1, 12), st.integers(1, 3), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_every_pass_learns_every_example_once_and_all_steps_but_the_last_are_full(sizes, batch_size, epochs, seed):
    how = {"batch_size": batch_size, "batch_tokens": None, "max_steps": None, "epochs": float(epochs), "seed": seed}
    steps = plan_steps(sizes, **how)
    places = [place for step in steps for place in step]
    assert len(places) == epochs * len(sizes)
    for start in range(0, len(places), len(sizes)):
        assert sorted(places[start : start + len(sizes)]) == list(range(len(sizes)))
    assert all(len(step) == batch_size for step in steps[:-1])
    assert 1 <= len(steps[-1]) <= batch_size
    assert steps == plan_steps(sizes, **how)


@given(lengths, st.integers(1, 100), st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_a_step_has_no_more_tokens_than_asked_for_unless_one_sequence_alone_has(sizes, batch_tokens, epochs):
    steps = plan_steps(
        sizes, batch_size=2, batch_tokens=batch_tokens, epochs=float(epochs), max_steps=None, seed=0
    )  # fmt: skip
    assert Counter(place for step in steps for place in step) == dict.fromkeys(range(len(sizes)), epochs)
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        tokens = sum(sizes[place] for place in step)
        assert tokens <= batch_tokens or len(step) == 1
        assert following is None or tokens + sizes[following[0]] > batch_tokens


@given(lengths, st.integers(1, 12), st.integers(1, 50), st.one_of(st.none(), st.integers(1, 100)))
@settings(deadline=None, max_examples=50)
def test_as_many_steps_as_asked_for_all_of_them_full(sizes, batch_size, max_steps, batch_tokens):
    steps = plan_steps(
        sizes, batch_size=batch_size, batch_tokens=batch_tokens, epochs=1.0, max_steps=max_steps, seed=0
    )  # fmt: skip
    assert len(steps) == max_steps
    assert batch_tokens is not None or all(len(step) == batch_size for step in steps)


def test_passes_are_in_orders_of_their_own_by_seed():
    def passes(seed):
        how = {"batch_size": 30, "batch_tokens": None, "epochs": 2.0, "max_steps": None, "seed": seed}
        return plan_steps([1] * 30, **how)

    first, second = passes(0)
    assert first != second
    assert passes(1)[0] not in (first, second)


def test_a_part_of_a_pass_is_learned_if_that_is_asked_for():
    steps = plan_steps([1] * 10, batch_size=4, batch_tokens=None, epochs=0.5, max_steps=None, seed=0)
    assert sum(map(len, steps)) == len({place for step in steps for place in step}) == 5
