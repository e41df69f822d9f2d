import keras
import numpy as np
import pytest
from conftest import small_options, small_size

from fer_tf import labels, paths, zoo
from fer_tf.card import ModelCard
from fer_tf.data.drawn import draw_faces
from fer_tf.training.explain import METHODS, attention_rollout, saliency
from fer_tf.training.keras_engine import KerasEngine, load_keras
from fer_tf.zoo.cnn_lstm import ToClips, ToFrames

CROPS = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)


def engine(name: str) -> KerasEngine:
    keras.utils.set_random_seed(0)
    size = small_size(name)
    model = zoo.build(name, emotions=7, image_size=size, **small_options(name))
    about = {"architecture": name, "image_size": size, "window": zoo.architecture(name).window}
    return KerasEngine(model, ModelCard(name=name, emotions=labels.FER2013, **about))


@pytest.mark.parametrize("name", [n for n in zoo.ARCHITECTURES if n != "efficientnet_b4"])  # b0 is its like
def test_maps_have_the_crops_size_and_lie_in_0_to_1(name):
    loaded = engine(name)
    crops = np.random.default_rng(0).integers(0, 256, (5, *loaded.card.input_shape), dtype=np.uint8)
    for method, emotion in ((METHODS[0], None), (METHODS[1], 3), (METHODS[1], np.array([0, 1, 2, 3, 4]))):
        maps = saliency(loaded, crops, method=method, emotion=emotion, batch_size=2)
        assert_maps(maps, crops.shape[:-1])
    if name == "vit":
        assert_maps(attention_rollout(loaded, crops, batch_size=2), crops.shape[:-1])
    else:
        with pytest.raises(ValueError, match="no attention layers"):
            attention_rollout(loaded, crops)


def assert_maps(maps, shape):
    assert maps.shape == shape and maps.dtype == np.float32
    peaks = maps.reshape(len(maps), -1).max(axis=1)
    assert maps.min() >= 0 and np.all(np.isclose(peaks, 1) | (peaks == 0))


def test_a_frozen_backbone_makes_no_difference():
    lenet = engine("lenet")
    free = saliency(lenet, CROPS, emotion=2)
    for layer in zoo.backbone_layers(lenet.model):
        layer.trainable = False
    np.testing.assert_allclose(saliency(lenet, CROPS, emotion=2), free, atol=1e-5)


def test_a_trained_network_needs_what_its_map_marks():
    """The shipped LeNet on drawn faces: covering the brightest fifth of its maps costs more than the darkest."""
    loaded, faces = load_keras(paths.MODELS / "lenet"), draw_faces(400, seed=11)
    crops = faces.crops(48)
    maps, right = saliency(loaded, crops).reshape(400, -1), {}
    for name, order in {"nothing": None, "brightest": -maps, "darkest": maps}.items():
        covered = crops.reshape(400, -1, 3).copy()
        if order is not None:
            np.put_along_axis(covered, np.argsort(order, axis=1)[:, : 48 * 48 // 5, None], 127, axis=1)
        right[name] = np.mean(loaded.logits(covered.reshape(crops.shape)).argmax(axis=1) == faces.labels)
    assert right["brightest"] + 0.05 < right["darkest"] <= right["nothing"]


@pytest.mark.parametrize("method", METHODS)
def test_the_map_lights_up_where_the_evidence_is(method):
    """A network that only sums brightness looks at the bright corner."""
    crops = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="sum")(crops)
    logits = keras.layers.Dense(2, kernel_initializer="ones")(keras.layers.Flatten()(x))
    card = ModelCard(name="sum", architecture="lenet", emotions=("dark", "bright"), image_size=32)
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :8, :8] = 200
    (salient,) = saliency(KerasEngine(keras.Model(crops, logits), card), image, method=method, layer="sum")
    assert salient[:8, :8].min() == pytest.approx(1) and salient[10:].max() == 0


def test_a_head_that_knows_places_needs_the_gradient_of_each_place():
    """Bright speaks for it above and against it below: the mean gradient is zero, that of each place is not."""
    crops = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="sum")(crops)
    model = keras.Model(crops, keras.layers.Dense(2, use_bias=False, name="head")(keras.layers.Flatten()(x)))
    above = np.repeat([1.0, -1.0], 512)
    model.get_layer("head").set_weights([np.stack([above, -above], axis=1)])
    card = ModelCard(name="halves", architecture="lenet", emotions=("above", "below"), image_size=32)
    grey = np.full((1, 32, 32, 3), 100, np.uint8)
    (salient,) = saliency(KerasEngine(model, card), grey, method="hires_cam", emotion=0, layer="sum")
    assert salient[:15].min() == pytest.approx(1) and salient[17:].max() == 0
    assert not saliency(KerasEngine(model, card), grey, method="grad_cam", emotion=0, layer="sum").any()
    pair, asked = np.repeat(grey, 2, axis=0), np.array([0, 1])
    above, below = saliency(KerasEngine(model, card), pair, emotion=asked, layer="sum", batch_size=1)
    assert above[:15].min() == pytest.approx(1) and not above[17:].any()
    assert below[17:].min() == pytest.approx(1) and not below[:15].any()


def test_the_maps_of_a_clip_say_when():
    """A network that reads the last frame alone looks at no other one."""
    clips = keras.Input((3, 32, 32, 3))
    frames = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="sum")(frames)
    backbone = keras.Model(frames, keras.layers.Flatten()(x), name="backbone")
    x = ToClips(3)(backbone(ToFrames()(clips)))
    logits = keras.layers.Dense(2, kernel_initializer="ones")(keras.layers.Cropping1D((2, 0))(x))
    model = keras.Model(clips, keras.layers.Flatten()(logits))
    card = ModelCard(name="last", architecture="cnn_lstm", emotions=("dark", "bright"), image_size=32, window=3)
    grey = np.full((2, 3, 32, 32, 3), 100, np.uint8)
    maps = saliency(KerasEngine(model, card), grey, layer="backbone/sum")
    assert maps.shape == (2, 3, 32, 32) and maps[:, 2].min() == pytest.approx(1) and not maps[:, :2].any()
    with pytest.raises(ValueError, match="a map or tokens"):
        saliency(engine("cnn_lstm"), np.zeros((1, 16, 48, 48, 3), np.uint8), layer="head_lstm_1")


def test_all_zero_maps_stay_zero():
    lenet = engine("lenet")
    lenet.model.get_layer("head_logits").set_weights([np.zeros((84, 7)), np.zeros(7)])
    assert not saliency(lenet, CROPS, emotion=0).any()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"layer": "conv_9"}, "has no layer 'conv_9'"),
        ({"layer": "head_dense"}, "a map or tokens"),
        ({"layer": "relu_3/conv"}, "has no layer 'relu_3/conv'"),
        ({"method": "magic_cam"}, "known are grad_cam, hires_cam"),
    ],
)
def test_unfit_choices(choice, message):
    with pytest.raises(ValueError, match=message):
        saliency(engine("lenet"), CROPS, **choice)
