"""OpenAI's client: a predicate for each document (one document is a picture), a choice and a score. Prints JSON."""

import json
import sys

import openai

url, busy_url, key, documents, picture = *sys.argv[1:4], json.loads(sys.argv[4]), sys.argv[5]
found = {}

client = openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
found["models"] = [model.id for model in client.models.list()]

questions = [{"type": "predicate", "instructions": document} for document in documents]
shown = [{"type": "input_image", "image_url": picture}]
questions.append({"type": "predicate", "name": "picture", "instructions": shown})
questions.append(
    {"type": "choice", "instructions": "Which?", "choices": [{"value": "cat"}, {"value": True}]}
)
questions.append(
    {"type": "score", "instructions": "How?", "levels": [{"label": "bad"}, {"label": "good"}]}
)
decision = client.decisions.create(model="judge", input="a cat", questions=questions)
found["predicates"] = [a.probability for a in decision.answers if a.type == "predicate"]
found["names"] = [answer.name for answer in decision.answers]
found["choice"] = decision.answers[-2].choice
found["score"] = decision.answers[-1].score
found["tokens"] = decision.usage.total_tokens

unreadable = [{"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8="}]
broken = [{"type": "predicate", "instructions": unreadable}]
decision = client.decisions.create(model="judge", input="a cat", questions=broken)
found["broken"] = decision.answers[0].type

busy = openai.OpenAI(api_key=key, base_url=f"{busy_url}/v1", max_retries=0)
for name, one, asked in (("unprocessable", client, []), ("busy", busy, questions)):
    try:
        one.decisions.create(model="judge", input="a cat", questions=asked)
    except openai.APIStatusError as error:
        found[name] = [type(error).__name__, error.status_code, error.message]
print(json.dumps(found))
