"""Texts and their word vectors: a zoo of them from end to end, known values, and files with mistakes."""

import csv
import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nfn_transformer import gbm, load_predictor, make_zoo
from nfn_transformer.cli.command_line import run_command
from nfn_transformer.errors import UserError
from nfn_transformer.generation import task_data
from nfn_transformer.generation.hyperparameters import Architecture, Hyperparameters, ZooRun
from nfn_transformer.generation.population import train_population
from nfn_transformer.generation.snapshots import count_correct
from nfn_transformer.generation.texts import build_text_data, frequent_words, read_texts
from nfn_transformer.generation.training_plan import TrainingPlan
from nfn_transformer.generation.word_vectors import corpus_vectors, word2vec_vectors
from nfn_transformer.models.consensus import CONSENSUS_FILE, load_consensus
from nfn_transformer.zoo.reading import read_zoo

TINY = ["--embed_dim", "4", "--hidden", "5", "--epochs", "3", "--tokens", "6", "--runs", "6", "--batch_size", "8"]


def _write(folder: Path, train: list[tuple], test: list[tuple], header: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train.csv", train), ("test.csv", test)):
        with open(folder / name, "w", newline="") as file:
            writer = csv.writer(file)
            if header:
                writer.writerow(["Class Index", "Title", "Description"])
            writer.writerows(rows)
    return folder


def _rows(count: int, seed: int) -> list[tuple]:
    """Texts of three classes, told by words of their own among common ones."""
    generator = np.random.default_rng(seed)
    own = (["goal", "team", "match"], ["bank", "share", "price"], ["star", "moon", "orbit"])
    found = []
    for number in range(count):
        words = [*generator.choice(own[number % 3], 4), *generator.choice(["the", "a", "of", "and"], 3)]
        generator.shuffle(words)
        found.append((number % 3 + 1, words[0], " ".join(words[1:])))
    return found


@pytest.fixture
def texts(tmp_path) -> Path:
    return _write(tmp_path / "texts", _rows(60, 1), _rows(30, 2))


def test_a_zoo_of_texts_has_the_layout_of_the_release_and_is_read(texts, tmp_path):
    out = tmp_path / "news"
    assert make_zoo.main(["--out", str(out), "--dataset", "news", "--texts", str(texts), *TINY]) == 0
    rows = list(csv.DictReader((out / "metadata/news.csv").read_text().splitlines()))
    zoo = read_zoo(out, "news", progress=False)
    assert len(zoo) == len(rows) == 6
    assert zoo.spec.embedding is None
    assert zoo.spec.classifier.sizes == (4, 4, 3)
    assert not zoo.report.faults
    vectors = torch.load(out / "news/embedding.pt", weights_only=True)["embedding.embedding.weight"]
    words = (out / "news/words.txt").read_text().splitlines()
    assert vectors.shape == (len(words) + 1, 4)
    assert not vectors[0].any()
    # The labels are those of the stored weights on the stored vectors.
    data = build_text_data(*read_texts(texts), words, vectors[1:].numpy(), 6)
    for row in rows:
        state = torch.load(out / row["ckpt_file"], weights_only=True)
        assert not any(key.startswith("embedding") for key in state)
        correct = count_correct({key: tensor[None] for key, tensor in state.items()}, zoo.spec, data)
        assert int(correct) / 30 == pytest.approx(float(row["test_accuracy"]), abs=1e-6)


def test_processes_and_later_commands_share_the_word_vectors(texts, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    flags = ["--dataset", "news", "--texts", str(texts), *TINY, "--population", "2"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = tmp_path / "one/news", tmp_path / "two/news"
    assert make_zoo.main(["--out", str(one), *flags]) == 0
    with pytest.MonkeyPatch.context() as patch:
        # What another machine would compute differs in the last bits.
        original = task_data.corpus_vectors
        patch.setattr(task_data, "corpus_vectors", lambda *given: original(*given) * (1 + 1e-6))
        assert make_zoo.main(["--out", str(two), *flags, "--jobs", "2"]) == 0  # its workers compute as we do
    first, second = (torch.load(out / "news/embedding.pt", weights_only=True) for out in (one, two))
    vectors, others = (found["embedding.embedding.weight"] for found in (first, second))
    assert not torch.equal(vectors, others)
    torch.testing.assert_close(vectors, others, rtol=1e-5, atol=1e-7)


def test_networks_on_texts_do_not_depend_on_their_company(texts):
    train, test = read_texts(texts)
    words = frequent_words(train.words, 100)
    data = build_text_data(train, test, words, corpus_vectors(train.words, words, 4, 1), 6)
    data = replace(data, vectors=data.vectors.double())
    architecture = Architecture(4, 2, 2, 5)
    plan = TrainingPlan(architecture.spec(3, None), 1, 8, 0, ("1", "100"), half=False)
    settings = [
        Hyperparameters("adam", 0.3, 1e-4, 0.5, 0.1, 0.01),
        Hyperparameters("rmsprop", 0.5, 1e-4, 1.0, 0.2, 0.003),
        Hyperparameters("sgd", 0.4, 0.0, 0.8, 0.0, 0.3),
    ]
    runs = [ZooRun(7 * number, one, architecture, 2 + number) for number, one in enumerate(settings)]
    together = train_population(plan, runs, data)
    for place, run in enumerate(runs):
        alone = train_population(plan, [run], data)
        for name, snapshot in alone.snapshots.items():
            assert together.snapshots[name].correct[place] == snapshot.correct[0] >= 0
            for key, tensor in snapshot.state.items():
                torch.testing.assert_close(together.snapshots[name].state[key][place], tensor[0])


def test_texts_become_rows_of_words_with_zeros_for_the_rest(tmp_path):
    folder = _write(tmp_path / "texts", [(1, "b a", "b"), (2, "c", "")], [(2, "a", "never seen"), (1, "", "")], False)
    train, test = read_texts(folder)
    words = frequent_words(train.words, 2)
    assert words == ["b", "a"]
    data = build_text_data(train, test, words, np.array([[1.0, 2.0], [3.0, 4.0]]), tokens=2)
    assert data.train.inputs.tolist() == [[1, 2], [0, 0]]
    assert data.test.inputs.tolist() == [[2, 0], [0, 0]]
    assert data.train.labels.tolist() == [0, 1]
    assert data.vectors.tolist() == [[0, 0], [1, 2], [3, 4]]
    assert data.classes == 2


def test_words_with_the_same_contexts_have_alike_vectors():
    generator = np.random.default_rng(0)
    animals, metals = ["cat", "dog"], ["iron", "gold"]
    texts = [["the", generator.choice(animals), "eats", "and", "sleeps"] for _ in range(80)]
    texts += [["heavy", generator.choice(metals), "melts", "in", "fire"] for _ in range(80)]
    words = frequent_words(texts, 100)
    vectors = corpus_vectors(texts, words, 3, seed=1)
    assert np.array_equal(vectors, corpus_vectors(texts, words, 3, seed=1))
    assert (vectors**2).mean() == pytest.approx(1)
    unit = dict(zip(words, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
    assert unit["cat"] @ unit["dog"] > 0.9
    assert unit["iron"] @ unit["gold"] > 0.9
    assert abs(unit["cat"] @ unit["gold"]) < 0.5


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.bin", "vectors.txt.gz", "vectors.bin.gz"])
def test_word2vec_files_are_read_and_reduced(tmp_path, name):
    generator = np.random.default_rng(0)
    there = ["zebra", "apple", "pear", "plum", "grape"]
    stored = generator.normal(size=(5, 4)).astype(np.float32)
    if ".bin" in name:
        parts = [
            word.encode() + b" " + struct.pack("<4f", *row) + b"\n" for word, row in zip(there, stored, strict=True)
        ]
    else:
        parts = [
            f"{word} {' '.join(map(repr, map(float, row)))}\n".encode() for word, row in zip(there, stored, strict=True)
        ]
    with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wb") as file:
        file.write(b"5 4\n" + b"".join(parts))
    words, vectors = word2vec_vectors(tmp_path / name, ["apple", "missing", "pear", "plum", "zebra", "grape"], 4)
    assert words == ["apple", "pear", "plum", "zebra", "grape"]
    assert np.allclose(vectors, stored[[1, 2, 3, 0, 4]])
    _, reduced = word2vec_vectors(tmp_path / name, words, 2)
    centred = vectors - vectors.mean(0)
    singular = np.linalg.svd(centred, compute_uv=False)
    assert np.allclose(np.linalg.norm(reduced, axis=0), singular[:2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello\n", "expected the numbers of words and of dimensions"),
        (b"2 3\nfoo 1 2\n", "line 2: not a word and 3 numbers"),
        (b"2 2\nfoo 1 x\n", "line 2: not a word and 2 numbers"),
        (b"1 2\nfoo 1 2\n", "expected more than 2 of the texts' words, got 1"),
        (b"1 1\nfoo 1\n", "expected at least 2 dimensions, got 1"),
    ],
)
def test_faulty_word2vec_files_are_named(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        word2vec_vectors(path, ["foo", "bar"], 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, "a", "b")], "train.csv, line 2: expected a class from 1"),
        ([("x", "a", "b")], "train.csv, line 2: expected a class from 1"),
        ([(1,)], "train.csv, line 2: expected a class from 1"),
        ([], "train.csv: no texts"),
        ([(1, "a", "b")], "test.csv: class 2 has no text in train.csv"),
    ],
)
def test_faulty_tables_are_named(tmp_path, rows, message):
    with pytest.raises(UserError) as error:
        read_texts(_write(tmp_path / "texts", rows, [(2, "a", "b")]))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--texts", "/nowhere"], "--texts /nowhere: no such folder"),
        (["--images", "."], "--images .: cannot be combined with --texts"),
        (["--crop_padding", "2"], "--crop_padding 2: cannot be combined with --texts"),
        (["--embed_dim", "400"], "--embed_dim 400: expected fewer dimensions than the 13 words"),
        (["--word_vectors", "/nowhere"], "--word_vectors /nowhere: no such file"),
    ],
)
def test_bad_values_are_named(texts, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        run_command(make_zoo.main, ["--out", str(tmp_path / "zoo"), "--texts", str(texts), *TINY, *flags])
    assert message in capsys.readouterr().err


def test_berts_are_told_by_texts_that_good_ones_agree_on(tmp_path):
    """A zoo of BERTs made, a blend with consensus fitted, and the texts of its tests written down."""
    mails, zoo, run = _write(tmp_path / "mails", _rows(60, 0), _rows(30, 1)), tmp_path / "berts", tmp_path / "run"
    flags = ["--family", "bert", "--texts", str(mails), "--runs", "20", "--jobs", "1", "--out", str(zoo)]
    flags += ["--embed_dim", "8", "--n_attention_heads", "2", "--n_layers", "1", "--tokens", "6", "--epochs", "2"]
    flags += ["--batch_size", "8"]
    assert make_zoo.main(flags) == 0
    words = (zoo / "vocab.txt").read_text().split()
    flags = ["--zoo", str(zoo), "--table", str(zoo / "table.csv"), "--wandb", "False", "--out_dir", str(run)]
    assert gbm.main(["--model", "extra_trees", "--n_estimators", "5", "--features", "consensus", *flags]) == 0
    with open(run / "consensus.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = load_consensus(run / CONSENSUS_FILE, load_predictor(run, "cpu").spec).texts
    assert [[int(word) for word in row["words"].split()] for row in rows] == texts.flatten(0, 1).tolist()
    classes = [label for label in range(3) for _ in range(texts.shape[1] // 3)]
    assert [(int(row["half"]), int(row["class"])) for row in rows] == [(h, label) for h in (0, 1) for label in classes]
    assert int(texts.max()) < len(words)
