"""`describe` and `check` for every kind of folder: its origin, whether it is complete, and its faults."""

import json

import pytest

from tests.folders import make_corpus, make_scores, make_triples, make_vectors
from unijudge import cli
from unijudge.errors import DataError, SettingsError
from unijudge.formats.corpus import CorpusManifest
from unijudge.formats.inventory import KINDS as KINDS_OF_FOLDERS
from unijudge.formats.inventory import check, describe
from unijudge.formats.rankings import Evaluation, Ranking, write_rankings
from unijudge.formats.scores import ScoreManifest, read_scores
from unijudge.formats.vectors import VectorManifest, start_vectors
from unijudge.provenance import Beginning, Provenance, differences
from unijudge.settings import Settings
from unijudge.storage.files import file_sha256, publish_json, read_json
from unijudge.storage.manifests import CONTENTS

KINDS = ["corpus", "vectors", "scores", "triples", "run", "evaluation"]


@pytest.fixture
def folders(tmp_path, identity):
    """One complete folder of each kind, by its name."""
    corpus = make_corpus(tmp_path / "corpus", tmp_path / "images")
    make_vectors(tmp_path / "vectors", corpus)
    make_triples(tmp_path / "triples", corpus, make_scores(tmp_path / "scores", corpus, identity))
    run = tmp_path / "run"
    publish_json(run / "settings.json", Beginning(settings={"steps": 1}, inputs={"the rows": "1"}))
    (run / "environment.json").write_text("{}")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    (run / "adapter").mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (run / "adapter" / "w.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(4)
    )
    rankings = tmp_path / "evaluation" / "rankings.parquet"
    write_rankings(rankings, [Ranking("q", "s", 1, ["i"], [0.5], ["i"], 1, bytes(16))])
    measured = Evaluation(
        corpus="c", subsets={"s": {"queries": 1, "mrr": 1}}, rankings_sha256=file_sha256(rankings)
    )
    publish_json(tmp_path / "evaluation" / "metrics.json", measured)
    return {kind: tmp_path / kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_folder_is_described_and_checked(folders, kind):
    folder = folders[kind]
    first, *lines = describe(folder).splitlines()
    assert first == f"{folder}: {kind}; every file is there"
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = f"{sum(path.stat().st_size for path in files):,}"
    assert lines[-1].split() == ["on", "disk", str(len(files)), "files,", size, "bytes"]
    assert check(folder).startswith(f"{folder}: {kind}, whole: ")


DAMAGE = {
    "corpus": ("queries.parquet", "changed since it was written"),
    "vectors": ("queries-00000.parquet", "not a whole Parquet file"),
    "scores": ("part-00001.parquet", "not a whole Parquet file"),
    "triples": ("part-00000.parquet", "not a whole Parquet file"),
    "run": ("adapter/w.safetensors", "but its header says"),
    "evaluation": ("rankings.parquet", "changed since it was written"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_named(folders, kind):
    name, reason = DAMAGE[kind]
    path = folders[kind] / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{path.name}: .*{reason}"):
        check(folders[kind])


def test_fewer_rows_than_promised_are_named(folders):
    """Each file is complete by itself, but the manifest promises more rows."""
    for kind, model, more in [
        ("corpus", CorpusManifest, {"items": 4}),
        ("evaluation", Evaluation, {"subsets": {"s": {"queries": 2}}}),
    ]:
        name = {"corpus": "corpus.json", "evaluation": "metrics.json"}[kind]
        manifest = read_json(folders[kind] / name, model)
        publish_json(folders[kind] / name, manifest.model_copy(update=more))
        with pytest.raises(DataError, match=r"but .*\.json says"):
            check(folders[kind])
    (folders["run"] / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not JSON"):
        check(folders["run"])


@pytest.mark.parametrize("name", ["environment.json", "adapter/adapter_config.json"])
@pytest.mark.parametrize("torn", ["", "{", "[]"])
def test_a_truncated_small_file_of_a_run_is_found(folders, name, torn):
    assert "whole" in check(folders["run"])
    (folders["run"] / name).write_text(torn)
    with pytest.raises(DataError, match=f"{name}: no "):
        check(folders["run"])


def test_a_folder_records_its_origin(folders, monkeypatch):
    monkeypatch.setattr(
        "sys.argv",
        ["/usr/bin/unijudge", "mine", "import", "pairs", "a b.csv", "https://me:pw@host/x"],
    )
    made = make_corpus(folders["corpus"], folders["corpus"].parent / "images").manifest.made
    assert made.command == "unijudge mine import pairs 'a b.csv' https://host/x"
    told = dict(line.split(maxsplit=1) for line in describe(folders["corpus"]).splitlines()[1:])
    assert told["made.command"] == made.command
    assert told["made.created"] == made.created
    assert made.created.endswith("+00:00")
    assert told["items"] == "3"
    assert told["source"] == "test | here"


class _Job(Settings):
    url: str
    many: tuple[str, ...]


def test_settings_are_kept_without_passwords():
    kept = Provenance.now(_Job(url="http://u:p@h:1/x", many=("s3://k@b", "plain"))).settings
    assert kept == {"url": "http://h:1/x", "many": ["s3://b", "plain"]}


def test_the_time_is_not_part_of_the_plan(folders, identity):
    """The program and the time that made a folder are neither compared nor hashed. An older folder may lack them."""
    early, late = (
        Provenance.now().model_copy(update={"created": when}) for when in ("2026", "2027")
    )
    plan = read_json(folders["scores"] / "manifest.json", ScoreManifest)
    assert plan.made is None
    publish_json(folders["scores"] / "manifest.json", plan.model_copy(update={"made": early}))
    assert len(list(read_scores(folders["scores"]))) == 3
    assert (
        differences(plan.model_copy(update={"made": early}), plan.model_copy(update={"made": late}))
        == []
    )
    assert differences(plan, plan.model_copy(update={"k": 9, "made": late})) == ["k"]

    plain = read_json(folders["vectors"] / "vectors.json", VectorManifest)
    folders["vectors"].rename(folders["vectors"].with_name("before"))
    for made in (early, late):
        start_vectors(folders["vectors"], plain.model_copy(update={"made": made}))
    assert read_json(folders["vectors"] / "vectors.json", VectorManifest).made == early
    for part in folders["vectors"].with_name("before").glob("*.parquet"):
        part.rename(folders["vectors"] / part.name)
    assert check(folders["vectors"]).endswith("vectors, whole: 6 rows read")
    with pytest.raises(DataError, match=r"holds other vectors .model differ"):
        start_vectors(folders["vectors"], plain.model_copy(update={"made": late, "model": "n"}))


def test_a_damaged_folder_does_not_hide_other_folders(folders, capsys):
    cli.run(["describe", str(folders["corpus"]), str(folders["vectors"])])
    told = capsys.readouterr().out
    assert str(folders["corpus"]) in told
    assert str(folders["vectors"]) in told
    with pytest.raises(DataError, match="nowhere: not a folder of unijudge"):
        cli.run(["describe", "nowhere", str(folders["corpus"])])
    assert str(folders["corpus"]) in capsys.readouterr().out


def test_folders_of_ours_and_files_of_others_are_checked_apart(folders, tmp_path):
    other = tmp_path / "rows.csv"
    other.write_text("query_text,positive_text\na,b\n")
    with pytest.raises(
        SettingsError, match=r"rows\.csv: is not a folder of this program, but .* is\. Give files"
    ):
        cli.run(["check", str(folders["corpus"]), str(other)])


def test_facts_are_printed_as_json_too(folders, capsys):
    cli.run(["describe", "--json", str(folders["corpus"]), str(folders["vectors"])])
    corpus, vectors = map(json.loads, capsys.readouterr().out.splitlines())
    assert (corpus["kind"], corpus["missing"], vectors["kind"]) == ("corpus", [], "vectors")
    assert corpus["manifest"]["items"] == CorpusManifest.model_validate(corpus["manifest"]).items
    cli.run(["check", "--json", str(folders["triples"])])
    assert json.loads(capsys.readouterr().out)["kind"] == "triples"
    with pytest.raises(DataError, match="not a folder of unijudge"):
        cli.run(["describe", "--json", "nowhere"])


def test_a_folder_of_another_kind_is_named(folders):
    with pytest.raises(
        DataError, match=r"scores: holds scores \(manifest\.json\), not vectors \(vectors\.json\)"
    ):
        read_json(folders["scores"] / "vectors.json", VectorManifest)
    with pytest.raises(DataError, match=r"scores: holds scores .*, not training rows"):
        file_sha256(folders["scores"] / "triples.json")
    with pytest.raises(DataError, match=r"nowhere: not a folder of unijudge \(no such folder\)"):
        describe(folders["scores"] / "nowhere")
    with pytest.raises(DataError, match=r"corpus\.json: not a folder of unijudge \(a file\)"):
        describe(folders["corpus"] / "corpus.json")


def test_every_kind_has_its_content_in_words():
    assert {kind.file.partition("/")[0] for kind in KINDS_OF_FOLDERS} == set(CONTENTS)
