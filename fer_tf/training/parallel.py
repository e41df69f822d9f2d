"""Several accelerators for one training: each computes its share of every batch. By Keras' distribution, so JAX alone.

Every device holds all weights and all train images. The program is that of one device, and XLA divides it: batch norm,
loss and gradient are those of the whole batch, and random changes are drawn as on one device, so the numbers are the
same to rounding and a run may go on with another number of devices.
"""

from contextlib import contextmanager

import keras


class Parallel(keras.distribution.DataParallel):
    """Data parallelism that hands every batch whole to every device; `Share` is where they part.

    Keras parts it before, and fails where a batch does not divide by the devices, as the last of an epoch seldom does.
    After it, inside of the step, any number of rows can be parted. What is handed over is row numbers mostly.
    """

    def get_data_layout(self, data_shape):
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)

    def get_share_layout(self, data_shape):
        return super().get_data_layout(data_shape)


class Share(keras.layers.Layer):
    """Tensors (n, ...) as they are, each device of `parallel` with its part of n."""

    def __init__(self, parallel: Parallel):
        super().__init__()
        self.parallel = parallel

    def call(self, batch):
        return keras.distribution.distribute_tensor(batch, self.parallel.get_share_layout(batch.shape))


def choose(devices: int | None) -> list[str]:
    """Return the names of so many devices, as Keras has them; None takes all accelerators, but one CPU.

    Empty where the backend cannot part a batch, and Keras places everything itself. Raises ValueError for more devices
    than there are, or more than one on such a backend.
    """
    backend = keras.backend.backend()
    if devices is not None and devices < 1:
        raise ValueError(f"devices must be at least 1, got {devices}")
    if backend != "jax":
        if devices is None or devices == 1:
            return []
        raise ValueError(
            f"a training on {devices} devices needs KERAS_BACKEND=jax, and this is {backend}: set it, or take 1 device"
        )
    found = keras.distribution.list_devices()
    if devices is None:
        devices = 1 if found[0].startswith("cpu") else len(found)
    if devices > len(found):
        raise ValueError(f"devices must be at most {len(found)}, for there are {', '.join(found)}; got {devices}")
    return found[:devices]


@contextmanager
def spread(model: keras.Model, names: list[str]):
    """Have the variables of `model`, and those made while the context lasts, on all of these devices.

    Afterwards the model is where it was. Fewer than two names change nothing.
    """
    if len(names) < 2:
        yield
        return
    parallel = Parallel(devices=names)
    try:
        with parallel.scope():
            _place(model, parallel.get_variable_layout)
            yield
    finally:
        _place(model, lambda variable: None)


def _place(model: keras.Model, layout) -> None:
    """Give every variable the layout that Keras gives those made within a distribution; a model comes from without."""
    for variable in model.variables:
        value = keras.ops.convert_to_numpy(variable)
        variable._layout = None  # else it would be kept
        variable._layout = layout(variable)
        variable.assign(value)


def count() -> int:
    """Return how many devices share a batch in this context."""
    current = _current()
    return current.num_model_replicas if current else 1


def share(batch):
    """Return a symbolic tensor (n, ...) parted between the devices of `spread`; the same one where there is one."""
    current = _current()
    return Share(current)(batch) if current else batch


def sharing(model: keras.Model) -> keras.Model:
    """Return what computes the same, its input parted between the devices of `spread`."""
    given = keras.Input(model.input_shape[1:])
    parted = share(given)
    return model if parted is given else keras.Model(given, model(parted))


def _current() -> Parallel | None:
    current = keras.distribution.distribution()
    return current if isinstance(current, Parallel) else None
