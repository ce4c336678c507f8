"""The command line from end to end, and what it answers to mistakes."""

import json
import math
import signal

import pytest


@pytest.fixture(scope="module")
def finished(command_line, tiny, tmp_path_factory):
    """A whole run, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    result = command_line("--config", "cnn_small", *tiny, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "cnn_small-001", result


def test_a_run_leaves_everything_a_user_was_promised(finished) -> None:
    run, result = finished
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["test/top1"] <= 1 and metrics["clips"]["test"] == 10
    assert sum(map(sum, metrics["test/confusion"])) == 10
    assert {"test/top5", "test/macro_f1", "test/ece", "test/per_class"} <= metrics.keys()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "val/top1" in line]
    assert [line["epoch"] for line in epochs] == [0, 1]
    assert all(math.isfinite(line["train/loss"]) for line in epochs)
    assert json.loads((run / "config.json").read_text())["data"]["train_clips"] == 20
    assert list(run.glob("events.out.tfevents.*"))
    page = (run / "report.html").read_text()
    assert "data:video/mp4;base64," in page and 'src="http' not in page
    assert str(run.relative_to(run.parents[1]) / "report.html") in result.stdout


def test_output_that_is_no_terminal_has_one_line_an_epoch(finished) -> None:
    _, result = finished
    assert "\x1b" not in result.stdout + result.stderr and "\r" not in result.stdout
    assert "Traceback" not in result.stderr
    assert sum("val" in line for line in (result.stdout + result.stderr).splitlines()) == 2


def test_a_finished_run_is_not_trained_again(finished, command_line) -> None:
    run, _ = finished
    before = (run / "metrics.json").stat().st_mtime_ns
    result = command_line("--config", "cnn_small", "--resume", cwd=run.parents[1])
    assert result.returncode == 0 and "is finished" in result.stdout
    assert (run / "metrics.json").stat().st_mtime_ns == before


def test_an_existing_run_folder_is_not_overwritten(finished, command_line) -> None:
    run, _ = finished
    result = command_line("--config", "cnn_small", "--out", str(run), cwd=run.parents[1])
    assert result.returncode == 2 and "--resume" in result.stderr and str(run) in result.stderr


def test_a_resumed_run_refuses_another_configuration(finished, command_line) -> None:
    run, _ = finished
    (run / "metrics.json").rename(run / "metrics.saved")
    try:
        result = command_line(
            "--out", str(run), "--resume", "--optim.learning_rate", "0.5", cwd=run.parents[1]
        )
    finally:
        (run / "metrics.saved").rename(run / "metrics.json")
    assert result.returncode == 2 and "optim.learning_rate" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "cnn_smal"], "did you mean 'cnn_small'"),
        (["--config"], "--config needs a name"),
        (["--config", "absent.json"], "absent.json"),
        (["--optim.learning_rte", "1"], "--optim.learning_rate"),
        (["--optim.learning_rate", "-1"], "optim.learning_rate is -1.0"),
        (["--model.dtype", "float8"], "float32"),
        (["--data.dataset", "moving_shape"], "did you mean 'moving_shapes'"),
        (["--augment.rotation", "-3"], "Augmentation.rotation"),
        (["--resume"], "no run of cnn_small"),
        (["--config", "video_folder"], "data.root is empty"),
        (["--config", "video_folder", "--data.root", "nowhere"], "nowhere"),
        (["--model.name", "cnn_smal"], "cnn_small"),
        (["--out", "/proc/run"], "/proc/run"),
        (["--data.size", "16", "--data.decode_size", "16"], "16"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(arguments, said, command_line, tmp_path) -> None:
    result = command_line(*arguments, cwd=tmp_path, COLUMNS="200")
    assert result.returncode in (1, 2), result.stdout
    assert said in result.stderr.replace("\n", " ") and "Traceback" not in result.stderr


def test_list_and_help_name_every_configuration_and_field(command_line, tmp_path) -> None:
    listed = command_line("--list", cwd=tmp_path)
    assert listed.returncode == 0 and "cnn_small_shift" in listed.stdout
    explained = command_line("--help", cwd=tmp_path, COLUMNS="200")
    assert explained.returncode == 0
    for field in ("--optim.learning_rate", "--data.root", "--augment.rotation", "--eval.views"):
        assert field in explained.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_seen_enough_is_no_error(command_line, tmp_path) -> None:
    process = command_line.start("--help", cwd=tmp_path)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def test_a_run_can_be_repeated_from_its_own_config_file(finished, command_line) -> None:
    run, _ = finished
    result = command_line(
        "--config", str(run / "config.json"), "--out", "again", cwd=run.parents[1]
    )
    assert result.returncode == 0, result.stderr
    again = run.parents[1] / "again"
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
