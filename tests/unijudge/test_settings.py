"""Settings: a message names the misspelt key, an example is a valid file, and settings cannot change."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from judge_service.settings import ServiceSettings
from miner.calibration.settings import CalibrateSettings
from miner.inspection.settings import InspectSettings
from miner.selection.settings import SelectSettings
from miner.settings import ScoreSettings
from miner.sweep.settings import SweepSettings
from trainer.embedding.settings import EmbedSettings
from trainer.evaluation.settings import EvaluateSettings, RerankSettings
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.errors import SettingsError
from unijudge.judging.prompt import Prompt
from unijudge.settings import example, load_settings, overrides_of

ALL = [
    ServiceSettings,
    ScoreSettings,
    SelectSettings,
    InspectSettings,
    SweepSettings,
    CalibrateSettings,
    EmbedSettings,
    EmbedderSettings,
    EvaluateSettings,
    RerankerSettings,
    RerankSettings,
]


@pytest.mark.parametrize("kind", ALL)
def test_an_example_is_a_valid_file_with_every_setting(kind, tmp_path):
    path = tmp_path / "example.toml"
    path.write_text(example(kind))
    required = [f"{name}=x" for name, field in kind.model_fields.items() if field.is_required()]
    assert load_settings(kind, path, required) == load_settings(kind, None, required)

    def fields(settings):
        for name, field in settings.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                yield from fields(inner)
            else:
                yield name, field

    for name, field in fields(kind):
        assert field.description, f"{kind.__name__}.{name} has no docstring"
        assert f"{name} =" in path.read_text()


@pytest.mark.parametrize(
    ("text", "overrides", "reason"),
    [
        ("prt = 1", [], r"s\.toml: prt: unknown setting. Did you mean port\?"),
        ("[model]\nnmae = 'x'", [], r"model\.nmae: unknown setting. Did you mean name\?"),
        ("[model]\nzzzzzz = 'x'", [], r"model\.zzzzzz: unknown setting. Known: backend, name"),
        ("port = 'x'", ["host=h"], r"s\.toml: port: input should be a valid integer"),
        ("", ["model.revision=1234567"], r"'model\.revision=\"…\"'$"),
        ("port = 99999", [], "port: input should be less than or equal to 65535"),
        (
            "",
            ["model.backend=magic"],
            "^command line: model.backend: input should be 'auto', 'vllm', 'transformers'",
        ),
        (
            "",
            ["model=qwen"],
            "model: is a table of settings. Set a key of this table: model.backend, model.name",
        ),
        ("", ["port"], "port: expected key=value"),
        ("port = 1", ["port.x=1"], "port is a value, not a table"),
        ("port = ", [], "not valid TOML"),
        ("prot = 1\nhots = 'x'", [], "(?s)prot.*hots"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, overrides, reason):
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=reason):
        load_settings(ServiceSettings, path, overrides)


def test_the_source_of_an_invalid_value_is_named(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("corpus = 'c'\nevaluation = 'r'\nout = 'o'\ntop = 1\n")
    with pytest.raises(
        SettingsError, match=r"(?s)^\S*s\.toml: top: .*\ncommand line: max_in_flight: input"
    ):
        load_settings(RerankSettings, path, ["max_in_flight=0"])
    with pytest.raises(
        SettingsError, match=r"s\.toml with the command line: settings: value error, held_out needs"
    ):
        load_settings(RerankSettings, path, ["top=5", "held_out=h"])


def test_any_text_survives_as_an_override():
    prompt = Prompt(instruction='Match? 😀 "ü"\n', yes="true")
    assert load_settings(Prompt, None, overrides_of(prompt)) == prompt


def test_a_missing_file_or_a_missing_key_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.toml: cannot be read"):
        load_settings(ServiceSettings, tmp_path / "nowhere.toml")
    with pytest.raises(SettingsError, match="settings: corpus: required, and not set"):
        load_settings(ScoreSettings, None)


def test_an_empty_list_does_not_switch_the_filter_off():
    folders = ["scores=a", "corpus=b", "vectors=c", "out=d"]
    for empty in ("betas=[]", "betas=[2.0]"):
        with pytest.raises(SettingsError, match="betas"):
            load_settings(SelectSettings, None, [*folders, empty])
    with pytest.raises(SettingsError, match="cutoffs"):
        load_settings(EvaluateSettings, None, ["corpus=b", "vectors=c", "out=d", "cutoffs=[0]"])


def test_overrides_are_read_as_toml_else_as_text(tmp_path):
    made = load_settings(
        SelectSettings,
        None,
        ["scores=a", "corpus=/b/c", "vectors=v", "out=o", "betas=[0.2, 0.1]", "partial=true"],
    )
    assert made.betas == (0.2, 0.1)
    assert made.partial is True
    assert made.corpus == Path("/b/c")
    assert made.scores == (Path("a"),), "one folder alone is a list of one"
    two = load_settings(
        SelectSettings, None, ['scores=["a", "b"]', "corpus=c", "out=o", "calibration=d"]
    )
    assert (two.scores, two.calibration) == ((Path("a"), Path("b")), (Path("d"),))
    with pytest.raises(SettingsError, match="calibration: there are 2 files for 1 folders"):
        load_settings(
            SelectSettings, None, ["scores=a", "corpus=c", "out=o", 'calibration=["d", "e"]']
        )
    with pytest.raises(SettingsError, match="at most 2 items"):
        load_settings(SelectSettings, None, ['scores=["a", "b", "c"]', "corpus=c", "out=o"])


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        ServiceSettings().port = 1


def test_the_shipped_file_is_valid():
    shipped = load_settings(ServiceSettings, Path(__file__).parents[2] / "deploy" / "judge.toml")
    assert shipped.model.name == "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize("value", ["2024", "true", "2024-01-01", "[1]"])
def test_a_folder_name_that_toml_misreads_is_named(value):
    with pytest.raises(
        SettingsError, match=r"out: value error, expected a path or a URL, found .*. Quote it"
    ):
        load_settings(ScoreSettings, None, ["corpus=c", "vectors=v", f"out={value}"])


def test_one_of_a_list_needs_no_brackets():
    from pathlib import Path

    assert load_settings(ScoreSettings, None, ["corpus=c", "out=o", "reuse=old"]).reuse == (
        Path("old"),
    )
    assert load_settings(
        SelectSettings, None, ["corpus=c", "out=o", "scores=s", "betas=0.3"]
    ).betas == (0.3,)
    with pytest.raises(
        SettingsError, match="out: value error, expected a path or a URL, found nothing"
    ):
        load_settings(ScoreSettings, None, ["corpus=c", "out="])


def test_a_copy_refuses_unknown_settings():
    settings = RerankSettings(corpus="c", evaluation="e", out="o")
    assert settings.model_copy(update={"top": 3}).top == 3
    with pytest.raises(TypeError, match="RerankSettings has no setting tops"):
        settings.model_copy(update={"tops": 3})
