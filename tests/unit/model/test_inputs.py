import pytest

from model.inputs import Channel, Inputs


def test_a_channel_is_a_name_and_a_kind() -> None:
    assert Channel.parse("value") == Channel("value", "level", 0)
    assert Channel.parse("value.return") == Channel("value", "return", 0)
    assert Channel.parse("volume.mean20") == Channel("volume", "mean", 20)
    assert Channel.parse("bid.size") == Channel("bid.size", "level", 0)  # a field may have a dot in its name
    assert Channel.parse("x.change.level") == Channel("x.change", "level", 0)


@pytest.mark.parametrize(
    "text", ["", ".change", "value.mean", "value.mean1", "value.mean513", "value.change3", "a,b", "a\n", " a", "x" * 65]
)
def test_what_is_no_channel_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="channel"):
        Channel.parse(text)


def test_the_reach_is_what_the_farthest_channel_looks_back() -> None:
    assert Inputs(32).reach == 32
    assert Inputs(32, ("value", "value.change")).reach == 33
    assert Inputs(32, ("value.mean30", "value.return")).reach == 61
    assert Inputs(32, ("value.volatility30",)).reach == 62


def test_fields_are_the_names_beside_the_value_in_order_of_mention() -> None:
    inputs = Inputs(8, ("volume.mean5", "value", "spread", "volume"))
    assert inputs.fields == ("volume", "spread")
    assert inputs.columns == 3


def test_the_seeds_sixteen_channels_over_32_steps_are_allowed() -> None:
    assert len(Inputs(32, tuple(f"field{i}" for i in range(16))).parsed) == 16


@pytest.mark.parametrize(
    ("window", "channels", "why"),
    [
        (1, ("value",), "at least 2 steps"),
        (4, (), "1 to 64 channels"),
        (4, ("a", "a"), "must be different"),
        (4, ("a", "a.level"), "must be different"),
        (4000, ("value.mean512",), "may reach back 4096"),
    ],
)
def test_inputs_that_cannot_be_are_refused(window: int, channels: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Inputs(window, channels)
