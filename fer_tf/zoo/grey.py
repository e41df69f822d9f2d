"""The first layers of every architecture: RGB crops in, judged in grey, as FER2013 has them."""

import keras

from fer_tf.faces import LUMA


def grey_crops(image_size: int, *, channels: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return the input RGB 0..255 (n, s, s, 3) and its luma (n, s, s, channels), repeated for three channels.

    Luma is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); the weights add up to 1, so grey stays what it is.
    """
    crops = keras.Input((image_size, image_size, 3), name="crops")
    luma = keras.ops.matmul(crops, LUMA[:, None])  # (n, s, s, 1)
    return crops, keras.ops.repeat(luma, channels, axis=-1) if channels > 1 else luma
