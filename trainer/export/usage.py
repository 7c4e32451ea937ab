"""How an exported model is loaded, library by library: the code that its card shows. Tests run it word for word."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unijudge.judging.prompt import Prompt
from unijudge.settings import overrides_of

Kind = Literal["embedder", "reranker"]
Form = Literal["merged", "adapter"]


@dataclass(frozen=True)
class Artefact:
    """What the code depends on."""

    name: str
    """Of the folder."""
    kind: Kind
    form: Form
    base: str
    """The model that was trained: a hub name, or a folder."""
    revision: str | None
    dtype: str
    min_pixels: int
    max_pixels: int
    max_tokens: int
    processor: Mapping[str, Any]
    """How its processor is asked for."""
    prompt: Prompt
    """What a reranker is asked."""
    labels: tuple[int, int]
    """A reranker's tokens of a match and of a mismatch."""
    pairs: bool
    """Whether a processor takes a reranker's pictures in the order in which its question names them."""
    bare: str | None
    """The word of a picture, where an embedder reads strings without a template, and pictures count on like text."""
    edge: int | None
    """To how many pixels on each side pictures are squashed, where they are."""

    @property
    def quoted(self) -> str:
        """The name as Python reads it."""
        return json.dumps(self.name, ensure_ascii=False)

    @property
    def base_name(self) -> str:
        """The model that was trained, as a reader knows it."""
        return base_name(self.base)

    @property
    def photo(self) -> str:
        """Code that opens a picture as the model was taught to see it."""
        size = f'.convert("RGB").resize(({self.edge}, {self.edge}), Image.Resampling.BICUBIC)' if self.edge else ""
        return f'Image.open("photo.jpg"){size}'


def base_name(name: str) -> str:
    """A hub name as it is; of a folder its own name, where the reader must put it: no path of this machine.

    Example:
        >>> base_name("Qwen/Qwen2-VL-2B-Instruct")
        'Qwen/Qwen2-VL-2B-Instruct'
    """
    folder = Path(name)
    return folder.resolve().name if folder.is_dir() else name


def loading(of: Artefact) -> str:
    """The section of the card."""
    parts = [_transformers(of)]
    if of.kind == "embedder" and not of.bare:
        parts += [_sentence_transformers(of), _vllm(of)]
    if of.kind == "reranker":
        parts += [*([_cross_encoder(of)] if of.pairs else []), _service(of)]
    if not of.edge and (of.pairs or (of.kind == "embedder" and not of.bare)):
        parts.append(_mteb(of))
    return "\n\n".join(["## How to load it", *parts])


def _transformers(of: Artefact) -> str:
    options = "".join(f", {name}={value!r}" for name, value in of.processor.items())
    revision = f', revision="{of.revision}"' if of.form == "adapter" and of.revision else ""
    weights = json.dumps(of.base_name, ensure_ascii=False) if of.form == "adapter" else of.quoted
    library, peft, adapted = "transformers", "", ""
    if of.form == "adapter":
        library, peft = "transformers and PEFT", "from peft import PeftModel\n"
        adapted = f"model = PeftModel.from_pretrained(model, {of.quoted}).eval().get_base_model()\n"
    use = _log_odds(of) if of.kind == "reranker" else _raw_embedding(of.bare) if of.bare else _EMBEDDING
    return f"""**{library}**:

```python
import torch
{peft}from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained({of.quoted}{options})
model = AutoModelForImageTextToText.from_pretrained({weights}{revision}, dtype=torch.{of.dtype}).eval()
{adapted}image = {of.photo}
{use}
```"""


_EMBEDDING = """content = [{"type": "image", "image": image}, {"type": "text", "text": "Find an image like this one."}]
inputs = processor.apply_chat_template(
    [[{"role": "user", "content": content}]], tokenize=True, return_dict=True, return_tensors="pt"
)
with torch.inference_mode():
    hidden = model.model(**inputs).last_hidden_state[:, -1]
vectors = torch.nn.functional.normalize(hidden.float(), dim=-1)"""


def _raw_embedding(picture: str) -> str:
    return f"""text = "{picture}\\nFind an image like this one."  # one at a time, for these positions
inputs = processor(text=[text], images=[image], return_tensors="pt")
positions = torch.arange(inputs.input_ids.shape[1]).expand(3, 1, -1)
with torch.inference_mode():
    hidden = model.model(**inputs, position_ids=positions).last_hidden_state[:, -1]
vectors = torch.nn.functional.normalize(hidden.float(), dim=-1)"""


def _log_odds(of: Artefact) -> str:
    query = '{"role": "query", "content": [{"type": "image", "image": image}]}'
    document = '{"role": "document", "content": [{"type": "text", "text": "a red fox"}]}'
    first, second = (query, document) if of.pairs else (document, query)
    return f"""messages = [
    {first},
    {second},
]
inputs = processor.apply_chat_template([messages], tokenize=True, return_dict=True, return_tensors="pt")
with torch.inference_mode():
    logits = model(**inputs).logits[:, -1].float()
log_odds = logits[:, {of.labels[0]}] - logits[:, {of.labels[1]}]  # {of.prompt.yes} and {of.prompt.no}"""


def _sentence_transformers(of: Artefact) -> str:
    return f"""**sentence-transformers**, for texts, images, and both in one:

```python
from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({of.quoted})
image = {of.photo}
vectors = model.encode(["a red fox", image, {{"image": image, "text": "Find an image like this one."}}])
print(model.similarity(vectors, vectors))
```"""


def _cross_encoder(of: Artefact) -> str:
    return f"""**sentence-transformers**; scores are log-odds, and chances with `activation_fn=torch.nn.Sigmoid()`:

```python
from PIL import Image
from sentence_transformers import CrossEncoder

model = CrossEncoder({of.quoted})
image = {of.photo}
query = {{"image": image, "text": "Find an image like this one."}}
scores = model.predict([(query, "a red fox"), (query, image)])
print(scores)
```"""


def _vllm(of: Artefact) -> str:
    if of.form == "adapter":
        return "**vLLM** takes the merged form: `unijudge train export --form merged`."
    options = json.dumps(dict(of.processor))
    return f"""**vLLM**, as a service that takes chat messages at `/v1/embeddings`:

```bash
vllm serve {shlex.quote(of.name)} --runner pooling --dtype {of.dtype} --max-model-len {of.max_tokens} \\
    --limit-mm-per-prompt '{{"image": 1, "video": 0}}' --mm-processor-kwargs '{options}' \\
    --chat-template-content-format openai
```

or inside a program:

```python
from PIL import Image
from vllm import LLM

if __name__ == "__main__":  # vLLM starts processes, which read this file again
    llm = LLM(
        {of.quoted},
        runner="pooling",
        dtype="{of.dtype}",
        max_model_len={of.max_tokens},
        limit_mm_per_prompt={{"image": 1, "video": 0}},
        mm_processor_kwargs={dict(of.processor)},
    )
    content = [{{"type": "image"}}, {{"type": "text", "text": "Find an image like this one."}}]
    prompt = llm.get_tokenizer().apply_chat_template([{{"role": "user", "content": content}}], tokenize=False)
    (output,) = llm.embed([{{"prompt": prompt, "multi_modal_data": {{"image": {of.photo}}}}}])
    vector = output.outputs.embedding
```"""


def _mteb(of: Artefact) -> str:
    wrapper = "SentenceTransformerEncoderWrapper" if of.kind == "embedder" else "CrossEncoderWrapper"
    kind = "dense" if of.kind == "embedder" else "cross-encoder"
    return f"""**mteb**; once it is published, load it by its name and revision, and fill in the other fields:

```python
import mteb
from mteb.models import ModelMeta, {wrapper}


def load(name: str, revision: str | None = None, **options):
    return {wrapper}({of.quoted}, **options)


meta = ModelMeta.create_empty(
    overwrites=dict(
        name={json.dumps(f"me/{of.name}", ensure_ascii=False)},
        loader=load,
        model_type=["{kind}"],
        modalities=["image", "text"],
        framework=["Sentence Transformers", "PyTorch"],
        adapted_from={json.dumps(of.base_name)},
    )
)
model = meta.load_model()  # for mteb.evaluate(model, tasks)
```"""


def _service(of: Artefact) -> str:
    if of.form == "adapter":
        return "**unijudge's own service** takes the merged form: `unijudge train export --form merged`."
    model = {"name": of.quoted, "dtype": of.dtype, "min_pixels": of.min_pixels, "max_pixels": of.max_pixels}
    given = [f"model.{name}={value}" for name, value in model.items()]
    given += [f"prompt.{override}" for override in overrides_of(of.prompt)]
    options = " \\\n    ".join(f"{shlex.quote(one)}" for one in given)
    return f"""**unijudge's own service** (`POST /v1/score`, `/v1/rerank`; on vLLM where that is installed):

```bash
unijudge judge serve \\
    {options}
```"""
