"""Build I3D as the Keras port does, with the same layer names."""

from typing import Any

from i3dzoo.network.architecture import BLOCKS


def build(keras: Any, shape: tuple[int, int, int, int], classes: int | None) -> Any:
    """Return a Keras model for clips of [T, H, W, C]; without classes it has no head."""
    layers = keras.layers

    def unit(x: Any, filters: int, kernel: int, name: str, stride: int = 1) -> Any:
        x = layers.Conv3D(
            filters, kernel, stride, "same", use_bias=False, name=f"Conv3d_{name}_conv"
        )(x)
        x = layers.BatchNormalization(scale=False, name=f"Conv3d_{name}_bn")(x)
        return layers.Activation("relu", name=f"Conv3d_{name}")(x)

    def pool(x: Any, size: tuple[int, ...], stride: tuple[int, ...]) -> Any:
        return layers.MaxPooling3D(size, stride, "same")(x)

    clip = keras.Input(shape)
    x = unit(clip, 64, 7, "1a_7x7", 2)
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = unit(unit(x, 64, 1, "2b_1x1"), 192, 3, "2c_3x3")
    x = pool(x, (1, 3, 3), (1, 2, 2))
    for block, (_, b0, b1a, b1b, b2a, b2b, b3) in BLOCKS.items():
        name = block.removeprefix("Mixed_")
        if name == "4b":
            x = pool(x, (3, 3, 3), (2, 2, 2))
        if name == "5b":
            x = pool(x, (2, 2, 2), (2, 2, 2))
        branches = [
            unit(x, b0, 1, f"{name}_0a_1x1"),
            unit(unit(x, b1a, 1, f"{name}_1a_1x1"), b1b, 3, f"{name}_1b_3x3"),
            unit(unit(x, b2a, 1, f"{name}_2a_1x1"), b2b, 3, f"{name}_2b_3x3"),
            unit(pool(x, (3, 3, 3), (1, 1, 1)), b3, 1, f"{name}_3b_1x1"),
        ]
        x = layers.concatenate(branches, name=block)
    if classes is not None:
        x = layers.Conv3D(classes, 1, name="Conv3d_6a_1x1_conv")(x)
    return keras.Model(clip, x)
