"""Valid inputs that are damaged in a few places."""

from hypothesis import strategies as st

EDITS = st.tuples(
    st.sampled_from(["cut", "flip", "put", "repeat", "end"]),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=24),
)
"""What is done, where (as a share of the input's length), and with which bytes."""


def _edited(data, edit):
    kind, share, extra = edit
    place = int(share * len(data))
    if kind == "cut":
        return data[:place] + data[place + len(extra) :]
    if kind == "flip":
        return data[:place] + extra + data[place + len(extra) :]
    if kind == "put":
        return data[:place] + extra + data[place:]
    if kind == "repeat":
        return data[:place] + data[max(0, place - 64 * len(extra)) :]
    return data[:place]


def _edited_by_all(data, edits):
    for edit in edits:
        data = _edited(data, edit)
    return data


def spoiled(sound):
    """Draws one of the inputs, and makes up to six edits."""
    return st.builds(_edited_by_all, st.sampled_from(sound), st.lists(EDITS, max_size=6))
