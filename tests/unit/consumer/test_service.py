"""How a worker starts, where no broker is needed for it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consumer import service
from model.bundle import BadBundle


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED\nof what"), BadBundle("v2: broken")])
def test_nothing_that_is_wrong_with_a_candidate_stops_the_start(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(_: Path) -> None:
        raise fault

    monkeypatch.setattr("consumer.service.versions.candidate", lambda path: path)
    monkeypatch.setattr("consumer.service.Predictor.load", load)
    settings: Any = SimpleNamespace(model=SimpleNamespace(path=Path("models")))
    assert service._candidate(settings) is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"starting without the candidate: {type(fault).__name__}")
    assert "\n" not in record.getMessage()
