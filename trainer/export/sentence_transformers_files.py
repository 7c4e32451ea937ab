"""The files that other libraries read besides the weights: modules of sentence-transformers, and chat templates.

A template prevents mistakes of the caller. Images always come before texts, whatever the order of the caller, and the
turn always ends at the start of the model's answer. This module works on names and numbers and imports no library.

Source:
    sentence-transformers 6.2: its modules Transformer, Pooling, Normalize and LogitScore, and their configurations.
    vLLM 0.32 takes pooling and normalisation from the same files.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.models.input_formats import EMBEDDING_FILE
from unijudge.errors import DataError
from unijudge.formats.model_folders import AdapterConfig, ModelConfig, missing_weights
from unijudge.judging.prompt import CANDIDATE, QUERY, Prompt
from unijudge.judging.reranker_file import JUDGING_FILE
from unijudge.storage.files import names_in, read_json, read_text
from unijudge.storage.outputs import check_only

FileTexts = dict[str, str]
"""Path inside the folder → text."""
EXPORTED = re.compile(
    r"(\d_[A-Za-z]+/)?[\w.-]+\.(json|safetensors|jinja|model)|README\.md|merges\.txt|vocab\.txt"
)
"""The names of the files in an exported model: files of this project, and files with weights and tokenizers."""

_ST = "sentence_transformers"
_TRANSFORMER = f"{_ST}.base.modules.transformer.Transformer"
_POOLING = f"{_ST}.sentence_transformer.modules.pooling.Pooling"
_NORMALIZE = f"{_ST}.sentence_transformer.modules.normalize.Normalize"
_LOGIT_SCORE = f"{_ST}.cross_encoder.modules.logit_score.LogitScore"

_TRIMMED = """{%- set turns = namespace(trimmed=[]) -%}
{%- for message in messages -%}
{%- set turn = namespace(parts=[]) -%}
{%- for part in message.content -%}
{%- set turn.parts = turn.parts + [dict(part, text=part.text | trim) if part.type == 'text' else part] -%}
{%- endfor -%}
{%- set turns.trimmed = turns.trimmed + [dict(message, content=turn.parts)] -%}
{%- endfor -%}
{%- set messages = turns.trimmed -%}
"""
_ORDERED = """{%- set add_generation_prompt = true -%}
{%- set turns = namespace(ordered=[]) -%}
{%- for message in messages -%}
{%- if message.content is not string -%}
{%- set message = dict(message, content=message.content | sort(attribute='type')) -%}
{%- endif -%}
{%- set turns.ordered = turns.ordered + [message] -%}
{%- endfor -%}
{%- set messages = turns.ordered -%}
"""
_PAIR = """{%- macro side(role) -%}
{%- for message in messages | selectattr('role', 'equalto', role) -%}
{%- for part in message.content | sort(attribute='type') -%}
{{- PICTURE if part.type == 'image' else part.text -}}
{%- endfor -%}
{%- endfor -%}
{%- endmacro -%}
{%- if messages | map(attribute='role') | list | sort == ['document', 'query'] -%}
{%- set add_generation_prompt = true -%}
{%- set messages = [{'role': 'user', 'content': [{'type': 'text', 'text': PARTS}]}] -%}
{%- endif -%}
"""
_SIDES = {"query_first": ("query", "document"), "candidate_first": ("document", "query")}
_NAMES = {"query": QUERY, "document": CANDIDATE}


def processor_options(backend: str) -> dict[str, Any]:
    """Returns the options with which a processor is loaded, so that images are scaled as in training.

    transformers has two options for the scaling library. The newer option, `backend`, also affects the video processor,
    which supports only torchvision. So this function uses the older option.

    Args:
        backend: The library that scales images: `pil` or `torchvision`.
    """
    return {"use_fast": backend == "torchvision"}


def embedder_template(template: str, *, trimmed: bool) -> str:
    """Returns a model's chat template with a fixed order: the image, the text, then the model's turn.

    Args:
        template: The chat template of the model.
        trimmed: Whether whitespace around a text is removed.
    """
    return (_TRIMMED if trimmed else "") + _ORDERED + template


def reranker_template(template: str, prompt: Prompt, picture: str) -> str:
    """Returns a model's chat template that turns a pair into the judge's question about this pair.

    A pair is a message of the role `query` and a message of the role `document`, in the form of CrossEncoder.

    Args:
        template: The chat template of the model, for all other messages.
        prompt: The prompt of the judge.
        picture: The text that the chat template of the model writes for an image.
    """
    asked = [json.dumps(prompt.instruction, ensure_ascii=False)]
    for role in _SIDES[prompt.order]:
        asked += [json.dumps(_NAMES[role]), f"side({json.dumps(role)})"]
    return (
        _PAIR.replace("PICTURE", json.dumps(picture)).replace("PARTS", " ~ ".join(asked)) + template
    )


def embedder_files(width: int, dtype: str, processor: Mapping[str, Any]) -> FileTexts:
    """Returns the files with which `SentenceTransformer(folder)` computes the normalised last hidden state.

    Args:
        width: The width of the embeddings.
        dtype: The dtype of the computation.
        processor: The result of `processor_options`.
    """
    pooling = {"embedding_dimension": width, "pooling_mode": "lasttoken", "include_prompt": True}
    return _modules({"": _TRANSFORMER, "1_Pooling": _POOLING, "2_Normalize": _NORMALIZE}) | {
        "sentence_bert_config.json": _transformer(
            "feature-extraction", "last_hidden_state", dtype, processor
        ),
        "1_Pooling/config.json": _text(pooling),
        "2_Normalize/config.json": _text({}),
        "config_sentence_transformers.json": _text(
            {"model_type": "SentenceTransformer", "prompts": {}, "similarity_fn_name": "cosine"}
        ),
    }


def reranker_files(yes_id: int, no_id: int, dtype: str, processor: Mapping[str, Any]) -> FileTexts:
    """Returns the files with which `CrossEncoder(folder)` computes the log-odds of a pair.

    Args:
        yes_id: The token of a match.
        no_id: The token of a mismatch.
        dtype: The dtype of the computation.
        processor: The result of `processor_options`.
    """
    return _modules({"": _TRANSFORMER, "1_LogitScore": _LOGIT_SCORE}) | {
        "sentence_bert_config.json": _transformer("any-to-any", "logits", dtype, processor),
        "1_LogitScore/config.json": _text({"true_token_id": yes_id, "false_token_id": no_id}),
        "config_sentence_transformers.json": _text(
            {
                "model_type": "CrossEncoder",
                "prompts": {},
                "activation_fn": "torch.nn.modules.linear.Identity",
            }
        ),
    }


def _modules(types: Mapping[str, str]) -> FileTexts:
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": kind}
        for n, (path, kind) in enumerate(types.items())
    ]
    return {"modules.json": _text(listed)}


def _transformer(task: str, output: str, dtype: str, processor: Mapping[str, Any]) -> str:
    forward = {"method": "forward", "method_output_name": output}
    inputs = dict.fromkeys(("text", "image", "image+text"), forward) | {
        "message": forward | {"format": "structured"}
    }
    module_output = "token_embeddings" if output == "last_hidden_state" else "causal_logits"
    return _text(
        {
            "transformer_task": task,
            "modality_config": inputs,
            "module_output_name": module_output,
            "model_kwargs": {"dtype": dtype},
            "processor_kwargs": dict(processor),
        }
    )


def _text(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def is_exported(folder: Path) -> bool:
    """Returns whether a folder is an exported model, with weights, a manifest of its inputs and a card of this project.

    Raises:
        DataError: The folder is an exported model, but also contains other files.
    """
    names = dict.fromkeys(names_in(folder), 0)
    if not names.keys() & {EMBEDDING_FILE, JUDGING_FILE} or "README.md" not in names:
        return False
    if "- unijudge" not in read_text(folder / "README.md").splitlines():
        return False
    try:
        if "adapter_config.json" in names:
            config: AdapterConfig | ModelConfig = read_json(
                folder / "adapter_config.json", AdapterConfig
            )
        else:
            config = read_json(folder / "config.json", ModelConfig)
        is_complete = not missing_weights(folder, config, names)
    except DataError:
        return False
    if is_complete:
        check_only(folder, lambda name: EXPORTED.fullmatch(name) is not None)
    return is_complete
