"""TypeSafe's client: a noul for each document, one of them an image, a choice and a score. Prints JSON."""

import base64
import json
import sys

import typesafe_sdk
from typesafe_sdk import Box, Choice, Image, Noul, Score, TypeSafeClient

url, busy_url, key, documents, picture = *sys.argv[1:4], json.loads(sys.argv[4]), sys.argv[5]
found = {}
once = typesafe_sdk.RetryPolicy(max_retries=0)
client = TypeSafeClient(api_key=key, base_url=url, retry=once)
found["models"] = [model.name for model in client.models.list().models]

# The client sends an image as a part of a multipart body, and a reference to the part in the question.
image = Image(base64.b64decode(picture))
questions = {str(place): Noul(instructions=text) for place, text in enumerate(documents)}
questions["picture"] = Noul(instructions=image)
questions["choice"] = Choice(criteria={"cat": None, "photo": image})
questions["score"] = Score(instructions="How?", criteria=["bad", "good"])
result = client.system_one(state="a cat", questions=questions, model="judge")
found["nouls"] = [answer.noul for answer in result.nouls.values()]
found["choice"] = result.choices["choice"].choice
found["score"] = result.scores["score"].score
found["legend"] = {str(level): text for level, text in result.scores["score"].legend.items()}
found["tokens"] = result.usage.input_tokens

result = client.system_one(state=[image, "a cat"], questions={"a": Noul(instructions="two cats")})
found["picture_in_state"] = result.nouls["a"].noul

busy = TypeSafeClient(api_key=key, base_url=busy_url, retry=once)
broken = {"a": Noul(instructions=Image(b"hello"))}
for name, one, asked in (
    ("box", client, {"a": Box(instructions="a cat")}),
    ("broken", client, broken),
    ("busy", busy, questions),
):
    try:
        one.system_one(state="a cat", questions=asked)
    except typesafe_sdk.TypeSafeAPIError as error:
        found[name] = [type(error).__name__, error.status, str(error)]
print(json.dumps(found))
