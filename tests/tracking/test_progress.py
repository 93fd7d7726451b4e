import io

from hpc_llm.tracking import progress
from hpc_llm.tracking.progress import duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pipe_gets_plain_lines():
    stream = io.StringIO()
    with progress("lora", 450, stream=stream, interval_seconds=0) as bar:
        bar.update(120, {"loss": 3.2149, "tokens/s": 14100.4})
        bar.update(450, {"loss": 3.0})
    first, last = stream.getvalue().splitlines()
    assert first.startswith("lora  120/450  loss 3.21  14,100 tokens/s  ETA ")
    assert last == "lora  450/450  loss 3  ETA 0:00"


def test_quick_steps_write_one_line_the_last():
    stream = io.StringIO()
    with progress("lora", 100, stream=stream, interval_seconds=3600) as bar:
        for step in range(1, 101):
            bar.update(step, {})
    assert stream.getvalue() == "lora  100/100  ETA 0:00\n"


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    with progress("lora", 450, start=100, stream=stream) as bar:
        bar.update(450, {"loss": 3.2})
    assert "450/450" in stream.getvalue()
    assert "loss 3.2" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_durations_read_like_a_clock():
    assert [duration(s) for s in (0, 59.6, 72, 3600, 90061)] == [
        "0:00",
        "1:00",
        "1:12",
        "1:00:00",
        "25:01:01",
    ]
