"""The commands in README.md and docs/ are ones that the program understands; they are not run."""

import pathlib
import re
import shlex

import pytest

from experiments import configs, run

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
# What a reader fills in, and an example of it.
EXAMPLES = {"HOST:PORT": "node1:1234", "N": "2", "I": "1", "NAME": "cnn_small"}


def commands(page: pathlib.Path) -> list[list[str]]:
    """The arguments of every `python -m experiments.run` of a page."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    # In a shell that has started the run before.
    text = re.sub(r"\$\{\w+:\+(\S+)\}|\$\(test [^)]*&& echo (\S+)\)", r"\1\2", text)
    found = []
    for match in re.finditer(r"python -m experiments\.run([^\n`;|)&'#]*)", text):
        words = shlex.split(re.sub(r"\.\.\.", "", match[1]))
        found.append([EXAMPLES.get(word, word) for word in words])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_understood(page) -> None:
    found = commands(page)
    assert found
    for words in found:
        if "--list" in words or "--help" in words:
            continue
        name = run._config_name(words)
        default = configs.load("cnn_small" if name.endswith(".json") else name)
        parsed = run.parse(words, name, default)
        assert parsed.settings.batch_size >= 1, words
    if page.parent.name == "docs":
        assert any("--resume" in words or "--plan" in words for words in found)


def test_a_wrong_flag_would_be_noticed(tmp_path, capsys) -> None:
    page = tmp_path / "page.md"
    page.write_text("`python -m experiments.run --config cnn_base \\\n  --batchsize 3`")
    (words,) = commands(page)
    assert words == ["--config", "cnn_base", "--batchsize", "3"]
    with pytest.raises(SystemExit):
        run.parse(words, "cnn_base", configs.load("cnn_base"))
