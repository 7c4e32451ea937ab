"""Small pictures for tests."""

import io

from PIL import Image


def png(color="red", size=(60, 60)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()
