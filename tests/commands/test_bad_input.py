"""Bad input: exit status 2, a message that names it, no traceback, nothing written."""

import shutil

import pytest
import torch
from running import fail

from nfn_transformer import main, predict


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


ZOO = ("--dataset", "digits", "--data_path", "ZOO")


def quick_flags(zoo) -> list[str]:
    """A run of seconds."""
    return ["--dataset", "digits", "--data_path", str(zoo), "--epochs", "2", "--enc_mode", "no", "--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "mnist"), "--dataset mnist: expected a zoo at data/mnist_transformer, "),
        (("--data_path", "absent"), "absent: no such file or folder"),
        (("--dataset", "mnist", "--data_path", "ZOO"), "no data set 'mnist'; looked for 'metadata/mnist.csv'"),
        ((*ZOO, "--ckpt_epoch", "50"), "75"),
        ((*ZOO, "--cut_off", "20"), "argument --cut_off: must be at least 0 and at most 1, got 20"),
        ((*ZOO, "--cut_off", "nan"), "argument --cut_off: must be at least 0 and at most 1, got nan"),
        ((*ZOO, "--cut_off", "0.9999"), "have an accuracy of at least 0.9999; too few runs to split"),
        ((*ZOO, "--wandb", "maybe"), "argument --wandb/--no-wandb: expected True or False, got 'maybe'"),
        ((*ZOO, "--epochs", "0"), "argument --epochs: must be at least 1 and at most 2147483647, got 0"),
        ((*ZOO, "--lr", "0"), "argument --lr: must be above 0, got 0"),
        ((*ZOO, "--lr", "fast"), "argument --lr: expected a number, got 'fast'"),
        ((*ZOO, "--batch_size", "1.5"), "argument --batch_size: expected a whole number, got '1.5'"),
        ((*ZOO, "--transformers_nfn_channels", "10,x"), "expected a whole number, got 'x'"),
        ((*ZOO, "--enc_mode", "cnn"), "argument --enc_mode: invalid choice: 'cnn'"),
        ((*ZOO, "--enc_mode", "no", "--cls_mode", "no", "--emb_mode", "no"), "leaves nothing to read"),
        ((*ZOO, "--n_heads", "4"), "--n_heads 4 contradicts 60 of 60 rows"),
        ((*ZOO, "--device", "tpu9"), "--device tpu9: expected auto, cpu, cuda or cuda:N"),
        ((*ZOO, "--device", "cuda:99"), "--device cuda:99: this machine has "),
        ((*ZOO, "--lr", "inf"), "argument --lr: must be above 0, got inf"),
        ((*ZOO, "--batch_size", "9" * 20), "argument --batch_size: must be at least 1 and at most 2147483647"),
        ((*ZOO, "--transformers_nfn_channels", "2000000000"), "the model cannot be made"),
        ((*ZOO, "--no-wandb", "True"), "--no-wandb takes no value, got 'True'"),
        ((*ZOO, "--out_dir", "taken"), "--out_dir taken: is not an empty directory; give another"),
        ((*ZOO, "--out_dir", "taken/file"), "--out_dir taken/file: is not an empty directory; give another"),
        ((*ZOO, "--out_dir", "taken/file/below"), "--out_dir taken/file/below: cannot be made"),
        (("--resume", "nowhere"), "nowhere: not a run directory; expected a file config.json in it"),
    ],
)
def test_main(arguments, message, small_zoo, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("something")
    arguments = [small_zoo if argument == "ZOO" else argument for argument in arguments]
    assert message in fail(main.main, capsys, *arguments)
    assert not (tmp_path / "runs").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"taken"}


def test_a_zoo_without_embedding_is_not_for_an_embedding_branch(small_zoo, tmp_path, capsys):
    zoo = tmp_path / "words"
    shutil.copytree(small_zoo, zoo, ignore=shutil.ignore_patterns(".zoo_cache"))
    for file in zoo.glob("digits/*.pt"):
        state = torch.load(file, weights_only=True)
        torch.save({key: value for key, value in state.items() if not key.startswith("embedding.")}, file)
    errors = fail(main.main, capsys, "--dataset", "digits", "--data_path", zoo)
    assert "--emb_mode mlp: the checkpoints of zoo 'digits' have no embedding; use --emb_mode no" in errors


def test_the_faulty_are_listed_and_allowed_only_when_asked(small_zoo, tmp_path, capsys):
    zoo = tmp_path / "faulty"
    shutil.copytree(small_zoo, zoo, ignore=shutil.ignore_patterns(".zoo_cache"))
    spoiled = sorted(zoo.glob("digits/*.pt"))[:5]
    for file in spoiled:
        file.write_bytes(file.read_bytes()[:100])
    errors = fail(main.main, capsys, "--dataset", "digits", "--data_path", zoo)
    assert all(file.name in errors for file in spoiled)
    assert not (tmp_path / "runs").exists()
    arguments = ["--dataset", "digits", "--data_path", zoo, "--allow_faulty", "--epochs", 1, "--enc_mode", "no"]
    assert main.main([*map(str, arguments), "--out_dir", str(tmp_path / "run")]) == 0
    assert "5 left out: 5 unreadable" in capsys.readouterr().out
    excluded = (tmp_path / "run/excluded.csv").read_text()
    assert all(file.name in excluded for file in spoiled)


def test_resume_goes_by_the_runs_own_configuration(small_zoo, tmp_path, capsys):
    main.main([*quick_flags(small_zoo), "--out_dir", "run"])
    assert "leave out --epochs, --lr" in fail(main.main, capsys, "--resume", "run", "--lr", "0.1", "--epochs", "2")


def test_damaged_run_directories_are_named(small_zoo, tmp_path, capsys):
    zoo = tmp_path / "zoo"
    shutil.copytree(small_zoo, zoo, ignore=shutil.ignore_patterns(".zoo_cache"))
    main.main([*quick_flags(zoo), "--out_dir", "run"])
    run = tmp_path / "run"
    (run / "results.json").write_text("{}")
    assert "results.json: is not what a finished run writes" in fail(main.main, capsys, "--resume", "run")
    (run / "results.json").unlink()
    zoo.rename(tmp_path / "moved")
    assert "the run's zoo is no longer there; name its new place by --data_path" in fail(
        main.main, capsys, "--resume", "run"
    )
    assert main.main(["--resume", "run", "--data_path", "moved"]) == 0
    (run / "results.json").unlink()
    (run / "split.json").write_text("[]")
    errors = fail(main.main, capsys, "--resume", "run", "--data_path", "moved")
    assert "split.json: holds a list, expected a JSON object" in errors
    (run / "config.json").write_text("{}")
    assert "of this version" in fail(main.main, capsys, "--resume", "run")


@pytest.fixture(scope="module")
def trained(small_zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "trained"
    assert main.main([*quick_flags(small_zoo), "--out_dir", str(path)]) == 0
    return path


def test_predict(trained, small_zoo, tmp_path, capsys):
    a_checkpoint = next(iter(sorted(small_zoo.glob("digits/*.pt"))))
    state = torch.load(a_checkpoint, weights_only=True)
    torch.save({**state, "classifier.fc2.bias": torch.zeros(7)}, tmp_path / "other_shape.pt")
    torch.save({**state, "encoder.0.fc1.bias": torch.full((32,), torch.nan)}, tmp_path / "not_finite.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    for arguments, message in [
        ((), "expected either checkpoints, or a labelled zoo by --dataset and --data_path"),
        ((a_checkpoint, "--dataset", "digits"), f"got both {a_checkpoint} and --dataset"),
        ((a_checkpoint, "--split", "test"), f"got both {a_checkpoint} and --split"),
        (("absent.pt",), "absent.pt: no such file or folder"),
        (("other_shape.pt",), "other_shape.pt: 'classifier."),
        (("not_finite.pt",), "not_finite.pt: 'encoder.0.fc1.bias'"),
        (("text.pt",), "text.pt: not a checkpoint"),
        ((a_checkpoint, "--out", "no/such/folder.csv"), "--out no/such/folder.csv: cannot be written"),
    ]:
        assert message in fail(predict.main, capsys, "--run", trained, *arguments), arguments
    assert "not a run directory" in fail(predict.main, capsys, "--run", small_zoo, a_checkpoint)


def test_a_step_that_cannot_be_prepared_is_refused_before_a_run_begins(small_zoo, tmp_path, capsys, monkeypatch):
    argv = ("--dataset", "digits", "--data_path", small_zoo, "--device", "cpu", "--out_dir", tmp_path / "none")
    errors = fail(main.main, capsys, *argv, "--cuda_graphs")
    assert "--cuda_graphs True: the device is cpu; CUDA graphs need a GPU" in errors
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--compile True: requires a C++ compiler on the CPU" in fail(main.main, capsys, *argv, "--compile")
    assert not (tmp_path / "none").exists()
