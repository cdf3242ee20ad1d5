"""What is read of the command line before it is parsed."""

from pathlib import Path

import pytest

from datamodules.offline import OfflineDataModule
from datamodules.online import OnlineDataModule
from gipo.cli import main
from gipo.commands.fit.arguments import data_module, with_shipped_configs
from gipo.common.errors import UserError


class MyDataModule(OfflineDataModule):
    """Somebody's own."""


def test_collection_unless_something_else_is_named() -> None:
    assert data_module(["fit"]) is OnlineDataModule
    assert data_module(["fit", "--data.task=reach-v3"]) is OnlineDataModule
    assert data_module(["fit", "--data_module=OfflineDataModule"]) is OfflineDataModule
    assert data_module(["fit", "--data_module", "OfflineDataModule"]) is OfflineDataModule
    assert data_module(["fit", f"--data_module={__name__}.MyDataModule"]) is MyDataModule


def test_what_is_named_last_counts(tmp_path: Path) -> None:
    named, silent = tmp_path / "named.yaml", tmp_path / "silent.yaml"
    named.write_text("data_module: OfflineDataModule\n")
    silent.write_text("data: {rounds: 3}\n")
    for config in (["--config", str(named)], [f"--config={named}"], ["-c", str(named)]):
        assert data_module(["fit", *config]) is OfflineDataModule
        assert data_module(["fit", *config, f"--config={silent}"]) is OfflineDataModule
        assert data_module(["fit", *config, "--data_module=OnlineDataModule"]) is OnlineDataModule
    assert data_module(["fit", "--data_module=OnlineDataModule", f"--config={named}"]) is OfflineDataModule


@pytest.mark.parametrize(
    "name",
    [
        "Nonsense",
        "no.such.module.Class",
        "gipo.policies.TokenPolicy",
        "pathlib",
        "datamodules.base.PolicyDataModule",
        "",
    ],
)
def test_what_is_no_data_module_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["fit", f"--data_module={name}"])
    error = capsys.readouterr().err
    assert error.startswith(f"gipo: error: data_module {name!r} is no data module; name OnlineDataModule or ")
    assert error.count("\n") == 1


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_data.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"'broken_data\.Mine' cannot be imported"):
        data_module(["fit", "--data_module=broken_data.Mine"])


def test_a_configuration_that_names_no_data_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data_module: gipo.common.errors.UserError\n")
    with pytest.raises(UserError, match=r"'gipo\.common\.errors\.UserError' is no data module"):
        data_module(["fit", f"--config={tmp_path}/a.yaml"])
    (tmp_path / "b.yaml").write_text("data_module: [")
    with pytest.raises(UserError, match=r"b\.yaml is not a readable YAML file"):
        data_module(["fit", f"--config={tmp_path}/b.yaml"])


def test_shipped_configurations_are_found_by_name_unless_a_file_is_nearer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = with_shipped_configs(["--config=bc.yaml"])
    assert Path(found.partition("=")[2]).name == "bc.yaml"
    assert data_module([found]) is OfflineDataModule
    Path("bc.yaml").write_text("")
    assert with_shipped_configs(["--config=bc.yaml"]) == ["--config=bc.yaml"]
    with pytest.raises(UserError, match=r"no configuration file 'post_trian\.yaml'.*post_train\.yaml"):
        with_shipped_configs(["--config", "post_trian.yaml"])
