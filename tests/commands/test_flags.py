"""The flags: published names and defaults, real booleans, help for all of them."""

import re
import shlex
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from nfn_transformer import gbm, main, make_zoo, predict, reproduce, runs, xgb
from nfn_transformer.cli import flags as shared_flags
from nfn_transformer.cli import training_command
from nfn_transformer.errors import UserError
from nfn_transformer.models.config import ModelConfig
from nfn_transformer.models.registry import ROLES, entries
from nfn_transformer.training.config import RunConfig
from nfn_transformer.training.run_directory import RunDirectory

PUBLISHED = {
    "seed": 3, "device": "auto", "model": "transformer_nfn", "epochs": 100, "warmup_epochs": 10, "batch_size": 16,
    "optimizer": "adam", "lr": 1e-3, "wd": 0, "init_type": "xavier_normal", "classifier_nfn_channels": (10, 10),
    "transformers_nfn_channels": (10,), "num_out_classify": 10, "num_out_embedding": 10, "num_out_encoder": 10,
    "enc_mode": "inv", "cls_mode": "mlp", "emb_mode": "mlp", "cut_off": 0, "load_cache": True,
}  # fmt: skip


def test_published_defaults():
    flags = main.build_parser().parse_args([])
    found = vars(flags) | ModelConfig.from_flags(vars(flags)).to_json()
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED


def test_the_data_set_is_the_published_one_for_a_zoo_and_the_bundled_one_without(bundled_zoo):
    def data(*words):
        return main.run_config(main.build_parser().parse_args(words)).data

    assert data("--data_path", "nowhere").dataset == "mnist"
    assert (data().dataset, data().data_path) == ("digits", str(bundled_zoo))
    assert data("--dataset", "digits").data_path == str(bundled_zoo)


@pytest.mark.parametrize(
    ("words", "modes"),
    [
        (["--enc_mode", "complete"], ("no", "no")),
        (["--cls_mode", "hnps", "--enc_mode", "complete"], ("hnps", "no")),
        (["--enc_mode", "complete", "--emb_mode", "mlp"], ("no", "mlp")),
        (["--enc_mode", "graph"], ("no", "no")),
        (["--enc_mode", "statnn"], ("mlp", "mlp")),
    ],
)
def test_what_reads_whole_networks_stands_alone_unless_asked(words, modes):
    found = ModelConfig.from_flags(vars(main.build_parser().parse_args(words)))
    assert (found.cls_mode, found.emb_mode) == modes


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (0.0, 1, False)),
        (["--enc_mode", "statnn", "--dropout", "0.3", "--ensemble", "2", "--standardize"], (0.3, 2, True)),
        (["--enc_mode", "complete"], (0.4, 5, False)),
        (["--enc_mode", "complete", "--standardize"], (0.4, 5, False)),
        (["--enc_mode", "complete", "--cls_mode", "mlp", "--standardize"], (0.4, 5, True)),
        (["--enc_mode", "complete", "--dropout", "0", "--ensemble", "1"], (0.0, 1, False)),
        (["--enc_mode", "graph"], (0.0, 1, True)),
        (["--enc_mode", "graph", "--standardize", "no"], (0.0, 1, False)),
    ],
)
def test_what_suits_small_zoos_is_a_default_of_what_reads_whole_networks(words, expected):
    found = ModelConfig.from_flags(vars(main.build_parser().parse_args(words)))
    assert (found.dropout, found.ensemble, found.standardize) == expected


def test_log_magnitudes_alone_are_refused():
    with pytest.raises(UserError, match=r"--log_magnitudes True: requires --standardize True"):
        ModelConfig.from_flags(vars(main.build_parser().parse_args(["--enc_mode", "mlp", "--log_magnitudes"])))


def test_what_is_of_graphs_is_read_by_them_alone():
    read = ModelConfig.from_flags(vars(main.build_parser().parse_args(["--enc_mode", "graph", "--graph_dim", "8"])))
    assert read.options == {"graph_layers": 3, "graph_dim": 8, "graph_conv": "gnn", "graph_probes": 0}
    with pytest.raises(
        UserError, match=r"--graph_conv attention: not read by --enc_mode inv .*; requires --enc_mode graph$"
    ):
        ModelConfig.from_flags(vars(main.build_parser().parse_args(["--graph_conv", "attention"])))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--wandb", "False"], False),
        (["--wandb", "no"], False),
        (["--no-wandb"], False),
        (["--wandb", "True"], True),
        (["--wandb"], True),
        (["--wandb=yes"], True),
        ([], None),
    ],
)
def test_booleans_are_real(words, expected):
    assert main.build_parser().parse_args(words).wandb is expected


def test_tracking_is_on_by_itself_only_under_a_sweep_agent(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    monkeypatch.setattr(training_command, "WandbTracker", lambda *settings: "W&B")

    def tracked():
        flags = [
            main.build_parser().parse_args(["--data_path", "nowhere", *words])
            for words in ([], ["--wandb"], ["--no-wandb"])
        ]
        config = main.run_config(flags[0])
        runs = [SimpleNamespace(config=config, directory=RunDirectory(tmp_path), trackers=[]) for _ in flags]
        for run, of_run in zip(runs, flags, strict=True):
            training_command.open_trackers([run], of_run)
        return ["W&B" in run.trackers for run in runs]

    assert tracked() == [False, True, False]
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert tracked() == [True, True, False]


def test_cuda_graphs_are_the_default_where_one_process_trains_on_a_gpu(monkeypatch):
    def resolved(*argv, device, processes):
        monkeypatch.setattr(shared_flags, "find_device", lambda text: torch.device(device))
        for name, value in (("RANK", "0"), ("WORLD_SIZE", processes), ("MASTER_ADDR", "here"), ("MASTER_PORT", "1")):
            monkeypatch.setenv(name, value)
        flags = main.build_parser().parse_args(["--data_path", "nowhere", *argv])
        return main.run_config(flags).training.cuda_graphs

    assert resolved(device="cuda", processes="1") is True
    assert resolved(device="cpu", processes="1") is False
    assert resolved(device="cuda", processes="2") is False
    assert resolved("--no-cuda_graphs", device="cuda", processes="1") is False


def test_explicit_flags_are_those_on_the_command_line():
    given = shared_flags.explicit_flags(main.build_parser(), ["--lr", "0.1", "--no-wandb", "--seed", "3"])
    assert given == {"lr": 0.1, "wandb": False, "seed": 3}


def test_help_explains_every_flag():
    parser = main.build_parser()
    text = parser.format_help()
    assert all(f"{group}:\n" in text for group in ("data", "model", "training", "run", "tracking"))
    assert "(default: None)" not in text
    options = text.partition("options:")[2]
    for name in vars(parser.parse_args([])):
        # A flag without help would be followed by the next flag, or by the end of its group.
        assert re.search(rf"^  --{name}\b[^\n]*(  +|\n {{20,}})\S", options, flags=re.MULTILINE), name


@pytest.mark.parametrize(
    ("words", "unread", "readers"),
    [
        ("--graph_dim 8", "--graph_dim 8", "--enc_mode graph"),
        ("--enc_mode complete --transformers_nfn_channels 20", "--transformers_nfn_channels 20", "--enc_mode inv, mlp"),
        ("--enc_mode graph --transformers_nfn_channels 5,6", "--transformers_nfn_channels 5,6", "--enc_mode inv, mlp"),
        ("--enc_mode graph --classifier_nfn_channels 10,10", "--classifier_nfn_channels 10,10", "another --cls_mode"),
        ("--enc_mode complete --num_out_classify 5", "--num_out_classify 5", "another --cls_mode than no"),
        ("--enc_mode no --num_out_encoder 5", "--num_out_encoder 5", "another --enc_mode than no"),
        ("--emb_mode no --num_out_embedding 10", "--num_out_embedding 10", "another --emb_mode than no"),
        (
            "--enc_mode mlp --init_type uniform",
            "--init_type uniform",
            "--enc_mode hnp, hnps, inv, magep, np or --cls_mode hnp, hnps, magep",
        ),
        (
            "--enc_mode mlp --cls_mode nft --init_type uniform",
            "--init_type uniform",
            "--enc_mode hnp, hnps, inv, magep, np or --cls_mode ",
        ),
        ("--enc_mode no --cls_mode no --dropout 0.1", "--dropout 0.1", "another --enc_mode than no or another --cls_"),
        ("--enc_mode complete --log_magnitudes False", "--log_magnitudes False", "--enc_mode graph, mlp, statnn or "),
        ("--cls_mode hnps --emb_mode no --standardize --log_magnitudes", "--log_magnitudes True", "--enc_mode graph"),
    ],
)
def test_a_flag_that_no_chosen_branch_reads_is_refused(words, unread, readers):
    with pytest.raises(UserError) as raised:
        ModelConfig.from_flags(vars(main.build_parser().parse_args(words.split())))
    assert str(raised.value).startswith(f"{unread}: not read by --enc_mode ")
    assert f"; requires {readers}" in str(raised.value)


def test_the_complete_encoder_always_standardizes():
    flags = main.build_parser().parse_args(["--enc_mode", "complete", "--standardize", "no"])
    with pytest.raises(UserError, match=r"--standardize False: .* --enc_mode complete, expected True"):
        ModelConfig.from_flags(vars(flags))


def test_each_choice_reads_what_it_declares():
    """The defaults, given explicitly, change nothing; the registry names each reader."""
    for role in ROLES:
        for name, entry in entries(role).items():
            modes = {each.mode: "no" for each in ROLES} | {role.mode: name}
            plain = ModelConfig(**modes)
            values = {**plain.options, **plain.to_json()}
            given = {**modes, **{setting: values[setting] for setting in entry.readable}}
            assert replace(ModelConfig.from_flags(given), ensemble=1) == plain


def test_an_error_in_a_flag_takes_two_lines(capsys):
    with pytest.raises(SystemExit) as ended:
        main.build_parser().parse_args(["--epochs", "many"])
    assert ended.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: main.py [flags]; --help explains all of them"
    assert error == "error: argument --epochs: expected a whole number, got 'many'"


@pytest.mark.parametrize("module", [main, xgb, gbm, predict, make_zoo, reproduce, runs])
def test_examples_in_the_help_are_sound_commands(module):
    parser = module.build_parser()
    program = f"nfn_transformer/{parser.prog}"
    assert len(parser.examples) >= 2
    for example in parser.examples:
        assert f"\n  {example}\n" in parser.format_help()
        python, path, *words = shlex.split(example, comments=True)
        assert (python, path) == ("python", program)
        parser.parse_args(words)


def test_a_factor_of_enlarging_requires_enlarging(bundled_zoo):
    words = ["--data_path", str(bundled_zoo), "--augment_factor", "2"]
    with pytest.raises(UserError, match=r"^--augment_factor 2: requires --augment True$"):
        main.run_config(main.build_parser().parse_args(words))
    assert main.run_config(main.build_parser().parse_args([*words, "--augment"])).data.augment_factor == 2


def test_only_what_is_read_is_recorded(bundled_zoo):
    words = ["--enc_mode", "mlp", "--cls_mode", "no", "--transformers_nfn_channels", "5"]
    values = main.run_config(main.build_parser().parse_args(words)).to_json()
    read = {"enc_mode", "cls_mode", "emb_mode", "num_out_encoder", "num_out_embedding", "transformers_nfn_channels"}
    assert set(values["predictor"]) == {*read, "dropout", "standardize", "log_magnitudes", "ensemble", "plugins"}
    assert not {"augment_factor", "augment_scale"} & set(values["data"])
    assert RunConfig.from_json(values).to_json() == values
