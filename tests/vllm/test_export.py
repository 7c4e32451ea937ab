"""An exported embedder in vLLM, loaded with the code of its card, gives the vectors of unijudge."""

import gc

import numpy as np
import pytest

from judge_service.backends.engine_options import engine_plan
from judge_service.backends.model_sizes import load_sizes
from judge_service.gpus import current_gpu
from judge_service.settings import ServiceSettings
from tests.trainer.conftest import corpus, folder, model, triples  # noqa: F401
from tests.trainer.exported import CONTENTS, TALL, as_given, run_card, trained_embedder, vectors
from trainer.export.export import export
from unijudge.content import Content

vllm = pytest.importorskip("vllm")


def test_vllm_gives_our_vectors(corpus, triples, model, tmp_path, monkeypatch):  # noqa: F811
    model = model.model_copy(update={"max_pixels": 112 * 112})
    run = trained_embedder(corpus, triples, model, tmp_path / "run")
    export(run, tmp_path / "exported")
    plan = engine_plan(ServiceSettings(), load_sizes(model.name, None), current_gpu(required=False))
    for name, value in plan.environment.items():
        monkeypatch.setenv(name, value)
    made = run_card(tmp_path / "exported", "vLLM", monkeypatch)
    llm = made.pop("llm")

    tokenizer = llm.get_tokenizer()

    def prompt(content):
        parts = [{"type": "image"}] * (content.image is not None)
        parts += [{"type": "text", "text": content.text}] if content.text else []
        text = tokenizer.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
        image = {"image": as_given(Content(image=content.image))} if content.image else {}
        return {"prompt": text, "multi_modal_data": image}

    found = [
        output.outputs.embedding
        for output in llm.embed([prompt(one) for one in CONTENTS], use_tqdm=False)
    ]
    largest = np.abs(np.array(found) - vectors(model, run / "adapter")).max()
    print(f"vLLM: {len(CONTENTS)} contents, largest difference {largest:.1e} in a unit vector")
    assert largest < 1e-4
    shown = vectors(model, run / "adapter", [Content("Find an image like this one.", TALL)])
    assert np.abs(np.array(made["vector"]) - shown).max() < 1e-4
    del llm
    gc.collect()
    vllm.distributed.cleanup_dist_env_and_memory()
