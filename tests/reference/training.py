"""Training and evaluation, written again: loops over rows, in float64, without code of the product.

A content is (text, picture): a text or None, and a picture's name or None. The code is short, slow and obvious.
"""

import math
import unicodedata
from dataclasses import dataclass, field

TIE = 1e-6


@dataclass
class Row:
    """One training row. The positive is the first candidate."""

    query: tuple
    candidates: list
    scores: list
    positives: list
    """What the data set calls right."""
    further: list = field(default_factory=list)
    """What the selection holds for right besides."""
    weight: float = 1.0


def exact(content):
    """Returns what equal contents have in common: whitespace around a text and the spelling of its accents do not
    count.
    """
    text, picture = content
    return unicodedata.normalize("NFC", text or "").strip(), picture


def alike(one, other):
    """Whether two contents are equal, apart from letter case and whitespace."""
    words = [
        unicodedata.normalize("NFC", text or "").casefold().split() for text, _ in (one, other)
    ]
    return words[0] == words[1] and one[1] == other[1]


def can_be_no_wrong_answer(content, query, right):
    """Whether the content equals a right answer or the question itself."""
    return any(alike(content, other) for other in [query, *right])


def shows_its_picture(content, query):
    return content[1] is not None and content[1] == query[1]


def right_of(row, rows):
    """Returns the right answers to a row's question, from all rows with this question."""
    asking = [other for other in rows if alike(other.query, row.query)]
    return [content for other in asking for content in other.positives + other.further]


def softmax(values, temperature):
    powers = [math.exp((value - max(values)) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def divergence(p, q):
    """Returns KL(P ‖ Q)."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def agreement(name, student, teacher, student_temperature, teacher_temperature):
    """Returns the term of one row of a loss with a judge's labels."""
    p, q = softmax(student, student_temperature), softmax(teacher, teacher_temperature)
    if name == "symmetric_kl":
        return (divergence(p, q) + divergence(q, p)) / 2
    if name == "js":
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        return (divergence(p, middle) + divergence(q, middle)) / 2
    if name == "kl":
        return divergence(q, p)
    assert name == "margin_mse"
    squares = []
    for place in range(1, len(student)):
        ours = (student[0] - student[place]) / student_temperature
        theirs = (teacher[0] - teacher[place]) / teacher_temperature
        squares.append((ours - theirs) ** 2)
    return sum(squares) / len(squares)


def loss(rows, batch, similarity, name, student_temperature, teacher_temperature, in_batch_weight):  # noqa: C901
    """Returns the loss of some of the rows, as two terms: of the row's own candidates, and of the candidates of the
    batch's other rows.
    """
    own_terms, other_terms = [], []
    everything = []
    for row in batch:
        for content in row.candidates:
            if all(exact(content) != exact(other) for other in everything):
                everything.append(content)
    for row in batch:
        right = right_of(row, rows)
        positive = row.candidates[0]
        own, others = [], []
        for content in everything:
            is_own = any(exact(content) == exact(candidate) for candidate in row.candidates)
            if exact(content) == exact(positive):
                own.append(content)
            elif can_be_no_wrong_answer(content, row.query, right):
                continue
            elif is_own:
                own.append(content)
            elif not shows_its_picture(content, row.query):
                others.append(content)

        def mass(contents, query=row.query):
            return sum(
                math.exp(similarity(query, content) / student_temperature) for content in contents
            )

        if name == "infonce":
            own_terms.append(row.weight * -math.log(mass([positive]) / mass(own)))
        else:
            student = [similarity(row.query, content) for content in row.candidates]
            term = agreement(name, student, row.scores, student_temperature, teacher_temperature)
            own_terms.append(row.weight * term)
        other_terms.append(row.weight * -math.log(mass(own) / mass(own + others)))
    count = len(batch)
    return sum(own_terms) / count, in_batch_weight * sum(other_terms) / count


def ranked(query, items, queries, similarity, *, to_the_letter=False):
    """(ranks of what is right, candidates, left out) of one evaluation query.

    Args:
        query: A dict of `content`, `positives` (places in `items`) and `closed` (places, or None).
        items: All contents of the pool.
        queries: All queries.
        similarity: Of the query with an item, by the item's place.
        to_the_letter: As in published benchmarks.
    """
    right = set(query["positives"])
    if query["closed"] is not None:
        candidates, left_out = list(query["closed"]), 0
    elif to_the_letter:
        candidates, left_out = list(range(len(items))), 0
    else:
        for other in queries:
            if alike(other["content"], query["content"]):
                right |= set(other["positives"])
        candidates = []
        for place, item in enumerate(items):
            known = can_be_no_wrong_answer(item, query["content"], [items[one] for one in right])
            if place in right or not (known or shows_its_picture(item, query["content"])):
                candidates.append(place)
        left_out = len(items) - len(candidates)
    wrong = [place for place in candidates if place not in right]
    golden = sorted(
        (place for place in candidates if place in right), key=lambda place: -similarity(place)
    )
    ranks = [
        1 + before + sum(similarity(place) >= similarity(gold) - TIE for place in wrong)
        for before, gold in enumerate(golden)
    ]
    return ranks, len(candidates), left_out


def ndcg(ranks, k):
    gained = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k)
    best = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, len(ranks)) + 1))
    return gained / best
