# SPDX-License-Identifier: Apache-2.0
"""Images between serialised messages and arrays: raw and compressed, in and out.

The compressed form is image_transport's: sensor_msgs/CompressedImage on TOPIC/compressed, with
format "rgb8; png compressed" or "rgb8; jpeg compressed bgr8".
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

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
    message: Any = typestore().deserialize_cdr(raw, RAW)
    if message.encoding in ("mono16", "16UC1") and image_format == "png":
        order = ">u2" if message.is_bigendian else "<u2"
        pixels: Any = _rows(message, 2).view(order)[..., 0].astype(np.uint16)
    else:
        pixels = to_rgb(message)[..., ::-1]
    options = [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL] if image_format == "png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, encoded = cv2.imencode(f".{image_format}", pixels, options)
    suffix = "jpeg compressed bgr8" if image_format == "jpeg" else "png compressed"
    small = typestore().types[COMPRESSED](
        header=message.header, format=f"{message.encoding}; {suffix}", data=encoded.reshape(-1)
    )
    return bytes(typestore().serialize_cdr(small, COMPRESSED))


def to_rgb(message: Any) -> Image:
    """Return uint8 RGB [H, W, 3] of an Image or CompressedImage. Raises EpisodeError for other encodings."""
    if hasattr(message, "format"):
        return decode(np.asarray(message.data, dtype=np.uint8), message.format)
    if message.encoding not in CHANNELS:
        raise EpisodeError(
            f"images are encoded as {message.encoding!r}, expected one of {', '.join(CHANNELS)}; "
            "record another image topic of this camera"
        )
    pixels = _rows(message, CHANNELS[message.encoding])
    if message.encoding == "mono8":
        return np.repeat(pixels, 3, axis=2)
    order = slice(2, None, -1) if message.encoding.startswith("bgr") else slice(3)
    return np.ascontiguousarray(pixels[..., order])


def decode(data: NDArray[np.uint8], name: str) -> Image:
    """Return uint8 RGB [H, W, 3] of a JPEG or PNG file in memory, by the decoder of the live path.

    `name` stands for it in the EpisodeError of a damaged one.
    """
    image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    if image is None:
        raise EpisodeError(f"a compressed image ({name!r}) cannot be decoded; is it JPEG or PNG?")
    return np.asarray(image, dtype=np.uint8)


def _rows(message: Any, pixel_bytes: int) -> NDArray[np.uint8]:
    """[H, W, pixel_bytes] without the padding at the end of each row. Raises EpisodeError for a wrong size."""
    expected = message.height * message.step
    if len(message.data) != expected or not expected or message.step < message.width * pixel_bytes:
        raise EpisodeError(
            f"an image of {message.width}x{message.height} {message.encoding} holds {len(message.data)} bytes "
            f"in rows of {message.step}; is the driver right?"
        )
    rows: NDArray[np.uint8] = np.asarray(message.data, dtype=np.uint8).reshape(message.height, message.step)
    return rows[:, : message.width * pixel_bytes].reshape(message.height, message.width, pixel_bytes)
