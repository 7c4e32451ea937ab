"""The output of a selection, counted from the results of `miner.select_row`."""


def statistics(results, settings, similarity):
    """Returns the output of a selection, except means of means. `results` has no row that was drawn at random."""
    kept = [one for one in results if one["reason"] == "kept"]
    negatives = [
        (query, *one) for query, result in enumerate(results) for one in result["negatives"]
    ]
    ties = 0
    for result in kept:
        values = [value for _, value, *_ in result["negatives"]]
        ties += len(set(values)) < len(values)
    tried = [one for one in results if one["reason"] in ("kept", "no survivor")]
    table = {
        "queries": len(results),
        "rows kept": len(kept),
        "left out, positive without verdict": sum(one["reason"] == "unjudged" for one in results),
        "left out, no candidate": sum(one["reason"] == "no candidate" for one in results),
        "left out, no survivor": sum(one["reason"] == "no survivor" for one in results),
        "left out, suspect positive": sum(one["reason"] == "suspect" for one in results),
        "left out by a person": sum(one["reason"] == "override" for one in results),
        "rows filled by fallback": 0,
        "rows under-filled (duplicates)": sum(
            len(one["negatives"]) < settings["num_negatives"] for one in kept
        ),
        "rows short of survivors": sum(
            len(one["kept"]) < settings["num_negatives"] for one in tried
        ),
        "candidates": sum(one["listed"] for one in results),
        "candidates dropped as false negatives": sum(
            len(one["pool"]) - len(one["kept"]) for one in results
        ),
        "suspect positives": sum(one["suspect"] for one in results),
        "rows with tied negatives": ties,
        "negatives chosen": len(negatives),
    }
    if kept:
        table["mean survivors of a row"] = sum(len(one["kept"]) for one in results) / len(kept)
    if table["candidates"]:
        table["share of candidates dropped"] = (
            table["candidates dropped as false negatives"] / table["candidates"]
        )
    if negatives:
        scores = [value for _, _, value, *_ in negatives]
        table["expected false negatives"] = sum(scores)
        table["mean score of a negative"] = sum(scores) / len(scores)
        table["mean similarity of a negative"] = sum(
            similarity[item] for _, item, *_ in negatives
        ) / len(negatives)
    return table
