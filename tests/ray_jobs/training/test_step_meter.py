"""What is said of a training while an epoch goes on."""

import pytest
import torch

from ray_jobs.training.step_meter import StepMeter, peak_flops, spell


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_reading_every_ten_seconds_of_what_happened_since_the_last() -> None:
    clock = Clock()
    meter = StepMeter(range(40, 100), clips=32, workers=2, clock=clock)

    def slowly() -> object:
        for item in range(12):
            clock.now += 0.25  # reading
            yield item

    readings = []
    for item in meter.waiting_for(slowly()):  # type: ignore[var-annotated, arg-type]
        clock.now += 0.75  # the step
        meter.count(tokens=500, loss=float(item))
        if reading := meter.reading():
            readings.append(reading)
    (speed,) = readings
    assert speed.loss == pytest.approx(4.5), "of items 0 to 9"
    assert speed.clips_per_s == pytest.approx(32), "a step takes a second"
    assert speed.tokens_per_s == pytest.approx(1000), "of both workers"
    assert speed.waiting == pytest.approx(0.25)
    assert speed.epoch_left_s == pytest.approx(50), "60 steps were left, 10 are done"
    assert speed.mfu is None
    assert spell(speed) == "loss 4.500  32.0 clips/s  1,000 tokens/s  25% of the time waiting for data"
    clock.now += 10
    again = meter.reading()
    assert again
    assert again.loss == pytest.approx(10.5), "items 10 and 11 alone"
    assert meter.waiting == pytest.approx(3 / 22), "of all 12 items, over 22 seconds"


def test_the_share_of_the_peak_is_that_of_three_forward_passes() -> None:
    clock = Clock()
    layer, tokens = torch.nn.Linear(64, 32), 50
    meter = StepMeter(range(10), clips=1, peak=1e6, clock=clock)
    for _ in range(2):
        with meter.counting_operations(tokens):
            layer(torch.randn(tokens, 64))
        meter.count(tokens, 0.0)
    clock.now += 20
    speed = meter.reading()
    assert speed
    assert speed.mfu == pytest.approx(3 * 2 * (2 * 50 * 64 * 32) / 20 / 1e6)
    assert "MFU 6%" in spell(speed)


def test_no_reading_without_steps_and_no_peak_without_a_gpu() -> None:
    clock = Clock()
    meter = StepMeter(range(10), clips=1, clock=clock)
    clock.now += 60
    assert meter.reading() is None, "the first step may take minutes"
    assert peak_flops(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("name", "tflops"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA A10G", 70),
     ("NVIDIA L4", 121), ("NVIDIA L40S", 362), ("Some GPU", None)],
)  # fmt: skip
def test_peaks_by_the_names_of_gpus(name: str, tflops: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak_flops(torch.device("cuda")) == (tflops and tflops * 1e12)
