# SPDX-License-Identifier: Apache-2.0
"""Images between serialised messages and arrays: raw and compressed, in and out.

The compressed form is image_transport's: sensor_msgs/CompressedImage on TOPIC/compressed, with
format "rgb8; png compressed" or "rgb8; jpeg compressed bgr8".
"""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import UnidentifiedImageError

from imagewam_ros.core.errors import EpisodeError
from imagewam_ros.core.schema import Image
from imagewam_ros.data.bag_types import typestore

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
FORMATS = ("raw", "png", "jpeg")
PNG_LEVEL = 1
"""zlib's fastest: on camera images the higher levels cost ten times as much for a tenth of the size."""

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def compress(raw: bytes, image_format: str, quality: int) -> bytes:
    """Return a serialised CompressedImage for a serialised Image. quality is JPEG's, 1 to 100.

    Raises EpisodeError for an encoding that the format cannot hold.
    """
    types = typestore().types
    message: Any = typestore().deserialize_cdr(raw, RAW)
    buffer = BytesIO()
    if message.encoding in ("mono16", "16UC1") and image_format == "png":
        order = ">u2" if message.is_bigendian else "<u2"
        depth = _rows(message, 2).view(order)[..., 0].astype(np.uint16)
        Picture.fromarray(depth).save(buffer, "png", compress_level=PNG_LEVEL)
    else:
        options = {"compress_level": PNG_LEVEL} if image_format == "png" else {"quality": quality}
        Picture.fromarray(to_rgb(message)).save(buffer, image_format, **options)
    suffix = "jpeg compressed bgr8" if image_format == "jpeg" else "png compressed"
    small = types[COMPRESSED](
        header=message.header,
        format=f"{message.encoding}; {suffix}",
        data=np.frombuffer(buffer.getvalue(), dtype=np.uint8),
    )
    return bytes(typestore().serialize_cdr(small, COMPRESSED))


def to_rgb(message: Any) -> Image:
    """Return uint8 RGB [H, W, 3] of an Image or CompressedImage. Raises EpisodeError for other encodings."""
    if hasattr(message, "format"):
        try:
            with Picture.open(BytesIO(bytes(message.data))) as picture:
                return np.asarray(picture.convert("RGB"), dtype=np.uint8)
        except (UnidentifiedImageError, OSError) as error:
            raise EpisodeError(f"a compressed image ({message.format!r}) cannot be decoded: {error}") from error
    if message.encoding not in CHANNELS:
        raise EpisodeError(
            f"images are encoded as {message.encoding!r}, expected one of {', '.join(CHANNELS)}; "
            "record another image topic of this camera"
        )
    pixels = _rows(message, CHANNELS[message.encoding])
    if message.encoding == "mono8":
        return np.repeat(pixels, 3, axis=2)
    order = (2, 1, 0) if message.encoding.startswith("bgr") else (0, 1, 2)
    return np.ascontiguousarray(pixels[..., order]) if order != (0, 1, 2) else np.ascontiguousarray(pixels[..., :3])


def _rows(message: Any, pixel_bytes: int) -> NDArray[np.uint8]:
    """[H, W, pixel_bytes] without the padding at the end of each row."""
    rows: NDArray[np.uint8] = np.asarray(message.data, dtype=np.uint8).reshape(message.height, message.step)
    return rows[:, : message.width * pixel_bytes].reshape(message.height, message.width, pixel_bytes)
