"""Ten kills at random moments; `make kills` runs a hundred (tests/faults/campaign.py)."""

import os
import random
from functools import partial

import pytest

from tests.faults.conftest import scenario
from tests.faults.kills import MEMBERSHIPS, Series, run_series

SEED = int(os.environ.get("KILLS_SEED", "0")) or random.randrange(1, 1_000_000)  # other moments in each run
SERIES = {"cooperative, dynamic": 4, "eager, static": 3, "KIP-848, dynamic": 3}


@pytest.mark.parametrize(
    "outcome_of",
    [
        pytest.param(
            (name, kills),
            marks=scenario(partial(run_series, membership=name, kills=kills, seed=SEED + number, rate=500), first=True),
            id=name,
        )
        for number, (name, kills) in enumerate(SERIES.items())
    ],
)
def test_workers_killed_at_random_lose_and_repeat_nothing(outcome_of: tuple[str, int], outcome: Series) -> None:
    membership, kills = outcome_of
    print(f"{membership}, seed {outcome.seed}:", *outcome.kills, sep="\n  ")
    assert membership in MEMBERSHIPS
    assert len(outcome.kills) == kills
    assert any(kill.waiting for kill in outcome.kills), "no kill met a record that was waiting"
