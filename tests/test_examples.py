"""The examples as a user runs them: a command, what it prints, how it ends."""

import functools
import importlib.util
import io
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tagging
from conftest import children_of, wait_until

tag_corpus = pytest.importorskip("tag_corpus", reason="nltk or tqdm is not installed")
tagging_data = pytest.importorskip("tagging_data")
tagging_gateways = pytest.importorskip("tagging_gateways")

TEXT = """A gateway is another interpreter. "Does it answer?" It does, at once!
Mr. Smith joined the board (as a director) in 1989.

no capital at the start
and a line end within; the paragraph ends it
"""

SENTENCES = [
    "A gateway is another interpreter.",
    '"Does it answer?"',
    "It does, at once!",
    "Mr.",
    "Smith joined the board (as a director) in 1989.",
    "no capital at the start\nand a line end within; the paragraph ends it",
]

# Enough for a gateway to be killed long before the end.
LONG_TEXT = tagging_data.python_topics()[:120_000]


@functools.cache
def in_process(text):
    """What tag_corpus.py must print: the same sentences tagged here."""
    return tagged_here(tag_corpus.split_sentences(text))


def tagged_here(sentences):
    lines = io.StringIO()
    for sentence in sentences:
        tagged = tagging.tagger().tag(tagging_gateways.split_words(sentence))
        lines.write(" ".join(f"{word}/{tag}" for word, tag in tagged) + "\n")
    return lines.getvalue()


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def long_file(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text(LONG_TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def weights():
    tagging.tagger()


def test_the_recipe_prints_true(tmp_path):
    done = tagging.run_example("tag_treebank.py", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_two_gateways_show_the_known_answer_twice(tmp_path):
    done = tagging.run_example("tag_two_gateways.py", cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
    known = "Pierre/NNP Vinken/NNP ,/, 61/CD years/NNS old/JJ ,/, will/MD join/VB the/DT board/NN"
    assert lines[0].startswith("With ")
    for shown in lines[1:4], lines[4:7]:
        assert shown[0].startswith(f"tagged: {known} ")
        assert shown[1].startswith(f"known:  {known} ")
        assert shown[2] == "True"
    assert len(lines) == 7


@pytest.mark.deep
def test_the_recipe_with_the_weights_from_pypi(tmp_path):
    """Without any NLTK data: textblob-aptagger's weights, and the recipe's sentence in place of the treebank."""
    if tagging_data._textblob_path() is None:
        pytest.skip("textblob-aptagger is not installed")
    nowhere = {"NLTK_DATA": str(tmp_path), "HOME": str(tmp_path)}
    done = tagging.run_example("tag_two_gateways.py", cwd=tmp_path, env=nowhere)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines().count("True") == 2
    done = tagging.run_example("tag_treebank.py", cwd=tmp_path, env=nowhere)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_the_file_of_weights_can_not_run_code(tmp_path):
    path = tmp_path / "weights.pickle"
    path.write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match="print"):
        tagging_data._tagger_of(path)


def test_without_weights_both_ways_are_named(tmp_path, text_file):
    shadow = tmp_path / "path" / "textblob_aptagger"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").touch()
    env = {"NLTK_DATA": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "path")}
    done = tagging.run_example("tag_corpus.py", text_file, cwd=tmp_path, env=env)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "textblob-aptagger" in done.stderr
    assert "NLTK_DATA" in done.stderr
    assert "Traceback" not in done.stderr


def test_sentences_of_a_text():
    assert list(tag_corpus.split_sentences(TEXT)) == SENTENCES
    assert list(tag_corpus.split_sentences(" \n\n \n")) == []
    assert "".join("".join(tag_corpus.split_sentences(tagging_data.python_topics())).split()) == "".join(
        tagging_data.python_topics().split()
    ), "splitting loses no character but white space"


@pytest.mark.parametrize(
    "specs", [[], pytest.param(["--tx", "popen"], marks=pytest.mark.deep), ["--tx", "2*popen", "--tx", "popen"]]
)
def test_a_file_tagged_equals_in_process(tmp_path, text_file, specs):
    done = tagging.run_example("tag_corpus.py", text_file, *specs, cwd=tmp_path)
    assert (done.stdout, done.returncode) == (in_process(TEXT), 0)
    assert "Traceback" not in done.stderr
    assert "weights" in done.stderr
    assert f"{len(SENTENCES)}/{len(SENTENCES)}" in done.stderr, "the progress bar ends full"
    assert "tokens a second" in done.stderr


@pytest.mark.deep
def test_a_long_text_keeps_its_order(tmp_path, long_file):
    done = tagging.run_example("tag_corpus.py", long_file, "--tx", "3*popen", "--output", "tagged.txt", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 0)
    assert (tmp_path / "tagged.txt").read_text(encoding="utf-8") == in_process(LONG_TEXT)


needs_the_c_module = pytest.mark.skipif(
    not importlib.util.find_spec("execnet_c._tagger"), reason="the tagger in C is not built"
)


@needs_the_c_module
def test_the_tagger_in_c_writes_the_same(tmp_path, long_file):
    done = tagging.run_example("tag_corpus.py", long_file, "--tagger", "c", "--output", "tagged.txt", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 0)
    assert (tmp_path / "tagged.txt").read_text(encoding="utf-8") == in_process(LONG_TEXT)
    assert f"tagging {long_file} by execnet_c's tagger with " in done.stderr
    assert "the tagger alone: " in done.stderr


@needs_the_c_module
def test_the_far_end_of_the_tagger_in_c_needs_no_nltk(tmp_path, text_file):
    """Nor is it there. The worker starts where this process is, and imports from there first."""
    (tmp_path / "nltk.py").write_text("raise ImportError('no nltk here', name='nltk')\n")
    done = tagging.run_example("tag_corpus.py", text_file, "--tagger", "c", "--tx", "popen", cwd=tmp_path)
    assert (done.stdout, done.returncode) == (in_process(TEXT), 0)


def package_without_the_c_module(folder):
    """A PYTHONPATH for a process that sees the installed package, but not its tagger."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['execnet_c._tagger'] = None\n")
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def test_the_tagger_in_c_where_it_is_not_built(tmp_path, text_file):
    env = {"PYTHONPATH": package_without_the_c_module(tmp_path)}
    done = tagging.run_example("tag_corpus.py", text_file, "--tagger", "c", cwd=tmp_path, env=env)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("tag_corpus: --tagger c needs the C module of execnet_c.tagging, which is not here: ")
    assert len(done.stderr.splitlines()) == 1


@needs_the_c_module
def test_the_far_end_has_no_tagger_in_c(tmp_path, text_file):
    python = f"env PYTHONPATH={package_without_the_c_module(tmp_path)} {sys.executable}"
    done = tagging.run_example(
        "tag_corpus.py", text_file, "--tagger", "c", "--tx", f"popen//python={python}", cwd=tmp_path
    )
    assert (done.stdout, done.returncode) == ("", 1)
    assert "can not import execnet_c._tagger; install execnet_c for it, or use --tagger nltk" in done.stderr
    assert done.stderr.endswith("no gateway is left to go on\n")


def test_a_tagger_that_is_none(tmp_path, text_file):
    done = tagging.run_example("tag_corpus.py", text_file, "--tagger", "fast", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 2)
    assert "choose from" in done.stderr


def test_files_in_the_order_named(tmp_path):
    names = ["b.txt", "a.txt", "empty.txt", "c.txt"]
    texts = ["Bees buzz", "Ants march.", "", "Café owners sleep.\n"]
    for name, text in zip(names, texts):
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = tagging.run_example("tag_corpus.py", *names, cwd=tmp_path, env={"PYTHONIOENCODING": "utf-8"})
    assert (done.stdout, done.returncode) == (in_process("\n\n".join(texts)), 0)
    assert [line.split("/")[0] for line in done.stdout.splitlines()] == ["Bees", "Ants", "Café"]


def test_a_file_that_does_not_exist(tmp_path, text_file):
    done = tagging.run_example("tag_corpus.py", text_file, "missing.txt", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == "tag_corpus: can not read missing.txt: No such file or directory\n"


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    done = tagging.run_example("tag_corpus.py", "latin", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("tag_corpus: can not read latin: 'utf-8' codec can't decode")
    assert "Traceback" not in done.stderr


def test_an_output_that_can_not_be_written(tmp_path, text_file):
    done = tagging.run_example("tag_corpus.py", text_file, "--output", "no/such/folder", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.endswith("tag_corpus: can not write no/such/folder: No such file or directory\n")


@pytest.mark.parametrize("spec", ["0*popen", *(pytest.param(spec, marks=pytest.mark.deep) for spec in ("3*", "*popen", ""))])
def test_a_spec_that_names_no_gateway(tmp_path, text_file, spec):
    done = tagging.run_example("tag_corpus.py", text_file, "--tx", spec, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 2)
    assert f"{spec!r} names no gateway" in done.stderr


def test_a_spec_of_no_known_kind(tmp_path, text_file):
    done = tagging.run_example("tag_corpus.py", text_file, "--tx", "popen", "--tx", "pigeon", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "--tx pigeon: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_stdout_closed_early(tmp_path):
    """As `| head -n 1` does."""
    with subprocess.Popen(
        tagging.command("tag_corpus.py"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        first = process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
    assert first.decode() == in_process(tagging_data.python_topics()[:400]).splitlines(True)[0]
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert "failed" not in said, "gateways that are told to end have not failed"


def test_the_far_end_has_no_nltk(tmp_path, text_file):
    """The worker starts where this process is, and imports from there first."""
    (tmp_path / "nltk.py").write_text("raise ImportError('no nltk here', name='nltk')\n")
    done = tagging.run_example("tag_corpus.py", text_file, "--tx", "popen", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "gateway 1 (popen) failed: " in done.stderr
    assert "can not import nltk; install nltk for it" in done.stderr
    assert done.stderr.endswith("no gateway is left to go on\n")


def start(cwd, program, *arguments, stdin=subprocess.DEVNULL):
    """A program that writes each line at once, and pipes that keep nothing back from communicate()."""
    return subprocess.Popen(
        tagging.command(program, *arguments),
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        bufsize=0,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_during_work(process, choose):
    """Kills some children of a tag_corpus.py as soon as it has written its first line; all that it prints and says."""
    first = process.stdout.readline()
    victims = choose(sorted(children_of(process.pid)))
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    rest, said = process.communicate(timeout=90)
    return (first + rest).decode(), said.decode()


@pytest.mark.parametrize("number", [1, 2])
def test_gateways_that_are_killed_lose_nothing(tmp_path, long_file, number):
    with start(tmp_path, "tag_corpus.py", long_file, "--tx", "2*popen") as process:
        printed, said = kill_during_work(process, lambda pids: pids[:number])
    assert process.returncode == 0
    assert "Traceback" not in said and "failed" not in said
    assert printed == in_process(LONG_TEXT)


def test_ctrl_c_ends_it_without_a_traceback(tmp_path):
    with start(tmp_path, "tag_corpus.py") as process:
        process.stdout.readline()
        workers = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert workers
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers)), "no worker outlives it"


# ---- tag_stream.py

LINES = [" ".join(sentence.split()) for sentence in tag_corpus.split_sentences(LONG_TEXT)][:600]


def test_a_stream_is_tagged_line_by_line(tmp_path):
    """Each answer is there before the next line is."""
    with start(tmp_path, "tag_stream.py", "--tx", "popen", stdin=subprocess.PIPE) as process:
        for line in [*LINES[:5], "", "the end", "é"]:
            process.stdin.write(f"{line}\n".encode())
            assert process.stdout.readline().decode() == tagged_here([line])
        rest, said = process.communicate(timeout=30)
    assert (rest, said, process.returncode) == (b"", b"", 0)


def test_a_stream_goes_on_when_a_gateway_is_killed(tmp_path):
    text = "".join(f"{line}\n" for line in LINES).encode()
    with start(tmp_path, "tag_stream.py", "--tx", "2*popen", stdin=subprocess.PIPE) as process:
        process.stdin.write(text[:2000])
        first = process.stdout.readline()
        victim = min(children_of(process.pid))
        process.stdin.write(text[2000:5000])
        os.kill(victim, signal.SIGKILL)
        rest, said = process.communicate(text[5000:], timeout=90)
    assert (said, process.returncode) == (b"", 0)
    assert (first + rest).decode() == tagged_here(LINES)


@needs_the_c_module
def test_a_stream_through_the_tagger_in_c(tmp_path):
    with start(tmp_path, "tag_stream.py", "--tagger", "c", stdin=subprocess.PIPE) as process:
        printed, said = process.communicate("".join(f"{line}\n" for line in LINES).encode(), timeout=90)
    assert (printed.decode(), said, process.returncode) == (tagged_here(LINES), b"", 0)


@pytest.mark.parametrize("how", ["ctrl-c", "closed"])
def test_a_stream_ends_while_it_waits_for_a_line(tmp_path, how):
    with start(tmp_path, "tag_stream.py", stdin=subprocess.PIPE) as process:
        process.stdin.write(b"It waits .\n")
        assert process.stdout.readline() == b"It/PRP waits/VBZ ./.\n"
        workers = children_of(process.pid)
        if how == "ctrl-c":
            process.send_signal(signal.SIGINT)
        else:
            process.stdout.close()
            process.stdin.write(b"Nobody reads this .\n")
        status = process.wait(30)  # its stdin is still open
        said = process.stderr.read()
    assert (said, status) == (b"", 130 if how == "ctrl-c" else 1)
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers)), "no worker outlives it"
