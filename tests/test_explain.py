import keras
import numpy as np
import pytest

from fer_tf import labels, zoo
from fer_tf.card import ModelCard
from fer_tf.training.explain import grad_cam
from fer_tf.training.keras_engine import KerasEngine

CROPS = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)


def engine(name: str) -> KerasEngine:
    keras.utils.set_random_seed(0)
    model = zoo.build(name, emotions=7, image_size=48)
    return KerasEngine(model, ModelCard(name=name, architecture=name, emotions=labels.FER2013, image_size=48))


@pytest.mark.parametrize("name", list(zoo.ARCHITECTURES))
@pytest.mark.parametrize("emotion", [None, 3, np.array([0, 1, 2, 3, 4])])
def test_maps_have_the_crops_size_and_lie_in_0_to_1(name, emotion):
    maps = grad_cam(engine(name), CROPS, emotion=emotion, batch_size=2)
    assert maps.shape == (5, 48, 48) and maps.dtype == np.float32
    assert maps.min() >= 0 and np.all(np.isclose(maps.max(axis=(1, 2)), 1) | (maps.max(axis=(1, 2)) == 0))


def test_a_frozen_backbone_makes_no_difference():
    lenet = engine("lenet")
    free = grad_cam(lenet, CROPS, emotion=2)
    for layer in zoo.backbone_layers(lenet.model):
        layer.trainable = False
    np.testing.assert_allclose(grad_cam(lenet, CROPS, emotion=2), free, atol=1e-5)


def test_the_map_lights_up_where_the_evidence_is():
    """A network that only sums brightness looks at the bright corner."""
    crops = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="sum")(crops)
    logits = keras.layers.Dense(2, kernel_initializer="ones")(keras.layers.Flatten()(x))
    card = ModelCard(name="sum", architecture="lenet", emotions=("dark", "bright"), image_size=32)
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :8, :8] = 200
    (saliency,) = grad_cam(KerasEngine(keras.Model(crops, logits), card), image, layer="sum")
    assert saliency[:8, :8].min() == pytest.approx(1) and saliency[10:].max() == 0


def test_all_zero_maps_stay_zero():
    lenet = engine("lenet")
    lenet.model.get_layer("head_logits").set_weights([np.zeros((84, 7)), np.zeros(7)])
    assert not grad_cam(lenet, CROPS, emotion=0).any()


@pytest.mark.parametrize(("layer", "message"), [("conv_9", "has no layer 'conv_9'"), ("head_dense", "spatial map")])
def test_unfit_layers(layer, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(engine("lenet"), CROPS, layer=layer)
