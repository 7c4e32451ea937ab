"""The package rerankers, as a client of Cohere, Jina and TEI. Prints the order of the documents as JSON."""

import json
import sys

from rerankers.models.api_rankers import APIRanker

url, busy_url, key, documents = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
PROVIDERS = {
    "cohere": "/v1/rerank",
    "jina": "/v1/rerank",
    "text-embeddings-inference": "/rerank",
}


def order(provider, address, query):
    ranker = APIRanker("judge", key, provider, verbose=0, url=address + PROVIDERS[provider])
    results = ranker.rank(query=query, docs=documents).results
    return [[result.document.doc_id, result.score] for result in results]


found = {provider: order(provider, url, "a cat") for provider in PROVIDERS}
for name, address, query in (("unprocessable", url, ""), ("busy", busy_url, "a cat")):
    try:
        order("jina", address, query)
    except Exception as error:  # noqa: BLE001  the client has no errors of its own
        found[name] = [type(error).__name__, str(error)[:200]]
print(json.dumps(found))
