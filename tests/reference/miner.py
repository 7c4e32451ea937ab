"""The miner's half of the method, written again: short, slow and obvious loops over plain data, without code of the
product. A world is a dict: `items` (id, text, picture, pools), `queries` (id, text, picture, positives), `scores` for
each judge (for each query its positives and candidates, as (item, log-odds or None, rank or None)), and `words`, the
overrides of people (query, item or None, verdict). Items and queries are named by their ids.
"""

import math
import unicodedata

EQUAL = 1e-6
LADDERS = {"unime-v2": (0.1, 0.01, 0.001), "paper": (0.01,), "topk": (), "cyclic": (), "random": ()}


# ---------------------------------------------------------------------------------------------- equal contents


def says(entry, fold=True):
    """Returns the content of an entry that is compared: its text without letter case and whitespace, and its
    picture.
    """
    text = unicodedata.normalize("NFC", entry["text"] or "")
    text = " ".join(text.casefold().split()) if fold else text.strip()
    return text, entry["picture"]


def known_answer(world, query, item, fold=True, allow_query_image=False):
    """Whether an item cannot be a wrong answer to a query."""
    asked, item = world["queries"][query], world["items"][item]
    for other in world["queries"].values():
        if says(other, fold) == says(asked, fold):
            for positive in other["positives"]:
                if says(world["items"][positive], fold) == says(item, fold):
                    return True
    if says(item, fold) == says(asked, fold):
        return True
    return bool(asked["picture"]) and item["picture"] == asked["picture"] and not allow_query_image


def word(world, query, item):
    """Returns the override of this content for this question, from any row, or None."""
    for other, named, verdict in world["words"]:
        if named is None:
            continue
        same_question = says(world["queries"][other]) == says(world["queries"][query])
        if same_question and says(world["items"][named]) == says(world["items"][item]):
            return verdict
    return None


# ---------------------------------------------------------------------------------------------- candidates


def kind(entry):
    return bool(entry["text"]), bool(entry["picture"])


def candidates(world, similarity, query, settings):
    """Returns item ids, the best first. `similarity` is a dict of (query, item) → cosine."""
    asked = world["queries"][query]
    pool, seen = [], set()
    for name, item in world["items"].items():
        if settings["pool"] == "subset" and asked["subset"] not in item["pools"]:
            continue
        if settings["pool"] == "modality" and kind(item) != kind(
            world["items"][asked["positives"][0]]
        ):
            continue
        if says(item, settings["fold_case"]) in seen:
            continue
        seen.add(says(item, settings["fold_case"]))
        pool.append(name)
    fold, own = settings["fold_case"], settings["allow_query_image"]
    allowed = [name for name in pool if not known_answer(world, query, name, fold, own)]
    allowed.sort(key=lambda name: -similarity[query, name])
    best = max(similarity[query, positive] for positive in asked["positives"])
    margin = settings["margin"]
    if settings["relative_margin"]:
        margin = max(margin, settings["relative_margin"] * abs(best))
    window = allowed[settings["range_min"] : settings["range_max"]]
    found = [name for name in window if similarity[query, name] < best - margin - EQUAL]
    return found[: settings["k"]]


# ---------------------------------------------------------------------------------------------- selection


def score(log_odds, scale):
    return 1 / (1 + math.exp(-(scale[0] * log_odds + scale[1])))


def cuts_of(world, query, rows, scales):
    """Returns for each judge σ⁺ and the positives that a person confirmed.

    σ⁺ is the judge's best score of a positive that no person denied. σ⁺ is 1 if the judge scored none of the confirmed
    positives, and None if the judge has no positive.
    """
    cuts, vouched = [], []
    for row, scale in zip(rows, scales, strict=False):
        scores, sure = [], []
        for item, log_odds, _ in row["positives"]:
            said = word(world, query, item)
            if said == "negative":
                continue
            if log_odds is not None:
                scores.append(score(log_odds, scale))
            if said == "match":
                sure.append(item)
        cuts.append(max(scores) if scores else (1.0 if sure else None))
        vouched.append(sure)
    return cuts, vouched


def listed_of(world, query, row, k):
    """Returns the first k candidates without labelled right answers, each content once, and the matches."""
    listed, matches, seen = [], [], set()
    for place, (item, log_odds, rank) in enumerate(row["candidates"]):
        content = says(world["items"][item], world["fold_case"])
        if content in seen:
            continue
        seen.add(content)
        said = word(world, query, item)
        if said is None and known_answer(
            world, query, item, world["fold_case"], world["allow_query_image"]
        ):
            continue
        if said == "match":
            matches.append(item)
        near = place if rank is None else rank
        if k is None or near < k:
            listed.append((item, log_odds, said))
    return listed, matches


def pool_of(listed, rows, cuts, scales):
    """Returns (item, score, judge, σ⁺) of each candidate that may be chosen. σ⁺ is None if a person decided."""
    pool = []
    for item, log_odds, said in listed:
        who, odds = 0, log_odds
        if len(rows) > 1 and cuts[1] is not None:
            for again, second, _ in rows[1]["candidates"]:
                if again == item and second is not None:
                    who, odds = 1, second
        if said == "negative":
            pool.append((item, 0.0, who, None))
        elif said is None and odds is not None and cuts[who] is not None:
            pool.append((item, score(odds, scales[who]), who, cuts[who]))
    return pool


def picked_of(pool, settings):
    """Returns the survivors, the reached margin, and the negatives in the order in which they were chosen."""
    kept, beta = pool, None
    if LADDERS[settings["preset"]]:
        for beta in settings["betas"] or LADDERS[settings["preset"]]:
            kept = [one for one in pool if one[3] is None or one[1] <= one[3] - beta + EQUAL]
            if kept:
                break
    walk = []
    stride = settings["stride"] if settings["preset"] in ("unime-v2", "paper", "cyclic") else 1
    for start in range(stride):
        walk += [kept[place] for place in range(start, len(kept), stride)]
    return kept, beta, walk[: settings["num_negatives"]]


def select_row(world, query, settings):
    """Returns the result for one query: reason, listed, pool, kept, positive, label, negatives, beta, extras, suspect,
    weight. If the paper draws at random, `drawn_from` replaces negatives.
    """
    rows = [judge.get(query, {"positives": [], "candidates": []}) for judge in world["scores"]]
    scales = settings["scales"]
    cuts, vouched = cuts_of(world, query, rows, scales)
    listed, matches = listed_of(world, query, rows[0], settings["k"])
    result = {
        "listed": len(listed),
        "pool": [],
        "kept": [],
        "negatives": [],
        "extras": [],
        "suspect": False,
    }
    denied = [word(world, query, item) == "negative" for item, _, _ in rows[0]["positives"]]
    if (query, None, "drop") in world["words"] or (denied and all(denied)):
        return result | {"reason": "override"}

    # The judge of the row is the second judge if it scored a positive.
    judge = 1 if len(rows) > 1 and cuts[1] is not None else 0
    if cuts[judge] is None:
        return result | {"reason": "unjudged"}
    label = 1.0 if vouched[judge] else cuts[judge]
    result |= {"label": label, "positive": best_positive(world, query, rows[judge], scales[judge])}
    result["suspect"] = label < settings["suspect_below"] - EQUAL
    if result["suspect"] and settings["suspect_action"] == "leave_out":
        return result | {"reason": "suspect"}
    lighter = result["suspect"] and settings["suspect_action"] == "down_weight"
    result["weight"] = label / settings["suspect_below"] if lighter else 1.0

    # Compare each candidate with the positive of the same judge, take the first margin with survivors, then walk.
    result["pool"] = pool = pool_of(listed, rows, cuts, scales)
    if not pool:
        return result | {"reason": "no candidate"}
    kept, beta, picked = picked_of(pool, settings)
    result |= {"kept": kept, "beta": beta}
    if not kept and settings["preset"] != "paper":
        return result | {"reason": "no survivor"}
    result["negatives"], result["drawn_from"] = picked, [] if kept else pool

    # Additional positives are the matches of people, and the candidates that score above the positive.
    taken = {item for item, *_ in picked}
    result["extras"] = [(item, 1.0) for item in matches]
    for item, value, _, cut in pool if settings["extra_positives"] and kept else []:
        if cut is not None and value >= cut - EQUAL and item not in taken:
            result["extras"].append((item, value))
    return result | {"reason": "kept"}


def best_positive(world, query, row, scale):
    """Returns a positive that a person confirmed.

    Otherwise the positive with the best score, and of equal scores the first.
    """
    best, value = None, None
    sure = [one for one in row["positives"] if word(world, query, one[0]) == "match"]
    for item, log_odds, _ in sure or row["positives"]:
        if word(world, query, item) == "negative" or (log_odds is None and not sure):
            continue
        mine = -1.0 if log_odds is None else score(log_odds, scale)
        if value is None or mine > value:
            best, value = item, mine
    return best


def labels(result):
    """Returns the soft labels of a row: the label of the positive, then the labels of the negatives."""
    return [result["label"], *(value for _, value, *_ in result["negatives"])]


def distribution(values, temperature):
    """softmax(labels / τ)."""
    top = max(values)
    weights = [math.exp((value - top) / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]
