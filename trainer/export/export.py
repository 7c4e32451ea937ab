"""Exports a finished run as a folder that other libraries load, with a card. All libraries get the same numbers.

The folder contains everything that changes a number: weights, chat template, limits of pixels, padding and dtype. An
export does not evaluate, upload or choose a licence.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.export.agreement import open_exported, sample_of
from trainer.export.model_card import RunFacts, card
from trainer.export.sentence_transformers_files import (
    FileTexts,
    embedder_files,
    embedder_template,
    is_exported,
    processor_options,
    reranker_files,
    reranker_template,
)
from trainer.export.usage import ExportedModel, Form, base_name
from trainer.models.lora import open_whole, write_merged
from trainer.models.settings import BackboneSettings
from trainer.training.report import read_steps
from trainer.training.run_folder import settings_of
from trainer.training.settings import EmbedderSettings, FinetuneSettings, RerankerSettings
from unijudge.errors import DataError, ModelError, SettingsError
from unijudge.formats.model_folders import AdapterConfig
from unijudge.formats.rankings import Evaluation
from unijudge.formats.scores import ScoreManifest
from unijudge.formats.triples import TripleManifest
from unijudge.formats.vectors import VectorManifest
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import JudgeIdentity
from unijudge.modeling.families import QwenVL
from unijudge.modeling.inputs import ModelInputs
from unijudge.modeling.model_source import load_config
from unijudge.pages.markdown import check_license
from unijudge.provenance import Beginning, Versions, without_places
from unijudge.storage.files import (
    file_sha256,
    folder_sha256,
    publish_text,
    publishing_folder,
    read_json,
    read_text,
)
from unijudge.storage.locations import locate
from unijudge.storage.outputs import check_absent, replacing


def export(
    run: Path,
    out: Path,
    form: Form = "merged",
    evaluations: Sequence[Path] = (),
    *,
    license: str | None = None,  # noqa: A002  the name of the field on the hub
    overwrite: bool = False,
) -> ExportedModel:
    """Writes the exported folder, complete or not at all.

    Args:
        run: The folder of a finished training of an embedder or of a reranker.
        out: A folder or a URL that does not exist yet. Its last part is the name of the model.
        form: `merged` writes complete weights. `adapter` writes the adapter alone, which needs the base model.
        evaluations: Folders of `train evaluate` or `train rerank` to show on the card.
        license: The licence on the card, in the short form of the hub, such as `apache-2.0`.
        overwrite: Whether to replace an older export.

    Raises:
        SettingsError: The licence is not a short form, or the run uses the encoding of a released checkpoint that an
            export cannot describe.
        DataError: The folder is not a finished run, an evaluation belongs to another model, the folder `out` exists, or
            a file could not be written.
        ModelError: The model or the adapter cannot be loaded, or the adapter does not match the model.
    """
    check_license(license)
    begun, settings = _read_run(run)
    adapter = run / "adapter"
    _check_base(adapter, settings.model)
    _check_encoding(run, settings.model)
    story = _story(run, begun, settings, evaluations)
    with replacing(out, is_exported, "exported model", overwrite=overwrite) as path:
        check_absent(path)
        with publishing_folder(path) as draft:
            inputs, agreement = _weights(form, settings, begun, adapter, draft)
            made = _artefact(out.name, form, settings, inputs)
            for name, text in _layout(made, settings, inputs).items():
                publish_text(draft / name, text)
            tiled = not isinstance(inputs.family, QwenVL)
            run_facts = replace(story, agreement=agreement)
            publish_text(draft / "README.md", card(made, run_facts, tiled=tiled, license=license))
    return made


OLD_KEYS = frozenset(
    {"auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights",
     "lora_alpha", "lora_dropout", "modules_to_save", "peft_type", "r", "revision", "target_modules", "task_type"}
)  # fmt: skip
"""The keys of an adapter's configuration that every version of peft knows."""
NOT_VERIFIED = " (not verified, since the evaluated vectors no longer exist or have changed)"
OTHER_JUDGE = " (reranked by {model}, whose weights {weights} are not the weights of this run)"


def _read_run(run: Path) -> tuple[Beginning, FinetuneSettings]:
    begun = read_json(run / "settings.json", Beginning)
    kind = RerankerSettings if "prompt" in begun.settings else EmbedderSettings
    settings = settings_of(run / "settings.json", begun, kind)
    if not (run / "adapter" / "adapter_config.json").is_file():
        raise DataError(
            f"{run}: the training is not finished, since the folder adapter/ is missing. Start the training again, "
            "which resumes from the last checkpoint"
        )
    return begun, settings


def _check_base(adapter: Path, model: BackboneSettings) -> None:
    """Raises an error if an adapter names another base model. The shapes of a foreign adapter may match by chance."""
    base = read_json(adapter / "adapter_config.json", AdapterConfig).base_model_name_or_path
    if base != model.name:
        raise ModelError(
            f"{adapter}: is an adapter for {base}, but the run trained an adapter for {model.name}. Restore the "
            "adapter of the run"
        )


def _check_encoding(run: Path, model: BackboneSettings) -> None:
    """Raises an error for an encoding that the files of an export cannot describe to other libraries."""
    if model.encoding == "chat":
        return
    kind = load_config(model.name, model.revision).model_type
    # An export cannot add a prompt to a content, and the card's code for bare strings computes the positions of Qwen.
    if model.encoding != "vlm2vec" or kind == "llava_next":
        raise SettingsError(
            f"{run}: uses model.encoding = {model.encoding!r} of {kind}, which the files of an export cannot describe "
            "to other libraries. Embed with `train embed`, or train with model.encoding = 'chat'"
        )


def _weights(
    form: Form, settings: FinetuneSettings, begun: Beginning, adapter: Path, folder: Path
) -> tuple[ModelInputs, str]:
    """Writes the weights. Returns the model's inputs, and the sentence that compares the weights with the run."""
    backbone, model = open_whole(settings.model, adapter), settings.model
    sample = sample_of(settings, begun.inputs)
    of_run = None if isinstance(sample, str) else sample.measured(backbone, together=True)
    inputs = backbone.inputs
    if form == "merged":
        write_merged(backbone, adapter, folder)
    else:
        _save_adapter(model, inputs, adapter, folder)
    del backbone  # frees the memory before the exported model is opened
    if isinstance(sample, str) or of_run is None:
        return inputs, sample if isinstance(sample, str) else ""
    exported = open_exported(model, folder, merged=form == "merged")
    dtype = "bfloat16" if model.dtype == "nf4" else model.dtype
    return inputs, sample.said(of_run, sample.measured(exported, together=False), dtype)


def _save_adapter(
    settings: BackboneSettings, inputs: ModelInputs, adapter: Path, folder: Path
) -> None:
    """Copies an adapter that matches its base model, and records the name of the base model."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    config = _spare(json.loads(read_text(adapter / "adapter_config.json")))
    config |= {"base_model_name_or_path": base_name(settings.name), "revision": settings.revision}
    publish_text(folder / "adapter_config.json", json.dumps(config, indent=2) + "\n")
    inputs.save(folder)


def _spare(config: dict[str, Any]) -> dict[str, Any]:
    """Returns an adapter's configuration without new keys at their defaults, which older versions of peft reject."""
    import peft

    usual = peft.LoraConfig().to_dict()
    kept = {}
    for key, value in config.items():
        is_unusual = value != usual.get(key) and key != "peft_version"
        if key in OLD_KEYS or is_unusual:
            kept[key] = value
    return kept


def _artefact(
    name: str, form: Form, settings: FinetuneSettings, inputs: ModelInputs
) -> ExportedModel:
    model = settings.model
    _, options = inputs.family.loader
    made = ExportedModel(
        name=name,
        kind="embedder",
        form=form,
        base=model.name,
        revision=model.revision,
        dtype="bfloat16" if model.dtype == "nf4" else model.dtype,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        max_tokens=model.max_tokens,
        processor=processor_options(options["backend"]),
        prompt=Prompt(),
        labels=(0, 0),
        pairs=False,
        bare=None,
        edge=inputs.family.fit(1000, 1000)[0] if model.resize == "square" else None,
    )
    if isinstance(settings, RerankerSettings):
        prompt = settings.prompt
        labels = inputs.encoder.label_id(prompt.yes), inputs.encoder.label_id(prompt.no)
        return replace(
            made, kind="reranker", prompt=prompt, labels=labels, pairs=prompt.order == "query_first"
        )
    if model.encoding == "vlm2vec" and isinstance(inputs.family, QwenVL):
        return replace(made, bare=inputs.encoder.image_token)
    return made


def _layout(made: ExportedModel, settings: FinetuneSettings, inputs: ModelInputs) -> FileTexts:
    template = inputs.chat_template
    if made.bare:
        return {}
    if made.kind == "embedder":
        width = inputs.config.get_text_config().hidden_size
        files = embedder_files(width, made.dtype, made.processor)
        trimmed = settings.model.encoding == "vlm2vec"
        return files | {"chat_template.jinja": embedder_template(template, trimmed=trimmed)}
    files = reranker_files(*made.labels, made.dtype, made.processor) if made.pairs else {}
    picture = inputs.encoder.written_picture()
    return files | {"chat_template.jinja": reranker_template(template, made.prompt, picture)}


def _story(
    run: Path, begun: Beginning, settings: FinetuneSettings, evaluations: Sequence[Path]
) -> RunFacts:
    triples = _same(settings.triples / "triples.json", begun.inputs.get("the rows"))
    manifest = read_json(settings.triples / "triples.json", TripleManifest) if triples else None
    return RunFacts(
        settings=settings,
        begun=begun,
        environment=read_json(run / "environment.json", Versions).root,
        last=read_steps(run)[-1],
        triples=manifest,
        judges=[] if manifest is None else list(_judges(settings.triples, manifest)),
        evaluations=[
            (f"{without_places(str(folder))}{mark}", found)
            for folder in evaluations
            for found, mark in [_evaluation(folder, run)]
        ],
    )


def _judges(triples: Path, manifest: TripleManifest) -> Iterator[JudgeIdentity]:
    """Yields the judges of the score folders that the selection names, if these folders are unchanged.

    The score folder of a published dataset, next to the rows, also counts.
    """
    named = [locate(folder) for folder in manifest.selection.get("scores", [])]
    for wanted in (manifest.scores, manifest.large_scores):
        for folder in (*named, triples.parent / "scores"):
            if _same(folder / "manifest.json", wanted):
                yield read_json(folder / "manifest.json", ScoreManifest).judge
                break


def _evaluation(folder: Path, run: Path) -> tuple[Evaluation, str]:
    """Returns an evaluation, with a remark if the evaluation may belong to another run.

    The adapter of the evaluated vectors, or the judge of a reranking, shows whether the evaluation belongs to this run.
    """
    evaluation, adapter = read_json(folder / "metrics.json", Evaluation), run / "adapter"
    extra = evaluation.model_extra or {}
    if judge := extra.get("judge"):
        is_own = (run / "merged").is_dir() and folder_sha256(run / "merged") == judge["weights"]
        return evaluation, "" if is_own else OTHER_JUDGE.format(**judge)
    vectors = extra.get("vectors")
    manifest = locate(vectors) / "vectors.json" if vectors else None
    if manifest and _same(manifest, evaluation.inputs.get("vectors")):
        made_by = read_json(manifest, VectorManifest).adapter
        if made_by != folder_sha256(adapter):
            raise DataError(
                f"{folder}: evaluates vectors of another adapter ({made_by}) than the adapter of this run "
                f"({folder_sha256(adapter)}). Give an evaluation of this run"
            )
        return evaluation, ""
    return evaluation, NOT_VERIFIED


def _same(file: Path, sha256: str | None) -> bool:
    """Returns whether a file exists and has this digest."""
    return sha256 is not None and file.exists() and file_sha256(file) == sha256
