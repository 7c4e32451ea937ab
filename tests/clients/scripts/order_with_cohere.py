"""Cohere's client, with versions 1 and 2 of its API. Prints the parsed answers as JSON."""

import json
import sys

import cohere

url, busy_url, key, documents = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
found = {}

v2 = cohere.ClientV2(key, base_url=url)
answer = v2.rerank(model="judge", query="a cat", documents=documents, top_n=3)
found["v2"] = [[result.index, result.relevance_score] for result in answer.results]
found["tokens"] = answer.meta.tokens.input_tokens

v1 = cohere.Client(key, base_url=url)
answer = v1.rerank(query="a cat", documents=documents, return_documents=True)
found["v1"] = [[result.index, result.relevance_score] for result in answer.results]
found["texts"] = [result.document.text for result in answer.results]

for name, address, query in (("unprocessable", url, ""), ("busy", busy_url, "a cat")):
    client = cohere.ClientV2(key, base_url=address)
    try:
        client.rerank(
            model="judge", query=query, documents=documents, request_options={"max_retries": 0}
        )
    except cohere.core.ApiError as error:
        found[name] = [type(error).__name__, error.status_code, str(error.body)]
print(json.dumps(found))
