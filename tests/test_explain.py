import keras
import numpy as np
import pytest
from conftest import small_options, small_size
from tiny_onnx import write_onnx

from fer_tf import labels, paths, zoo
from fer_tf.card import ModelCard
from fer_tf.data.drawn import draw_faces
from fer_tf.faces import softmax
from fer_tf.inference.engine import load_engine
from fer_tf.training.explain import METHODS, attention_rollout, branch_engines, integrated_gradients, saliency
from fer_tf.training.keras_engine import KerasEngine, load_keras
from fer_tf.training.occlusion import occlusion
from fer_tf.zoo.cnn_lstm import ToClips, ToFrames

CROPS = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """An ONNX engine that sees red faces as happy and blue ones as sad."""
    return load_engine(write_onnx(tmp_path_factory.mktemp("colours") / "model.onnx"))


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
    for method, emotion in (("grad_cam", None), ("hires_cam", 3), ("hires_cam", np.array([0, 1, 2, 3, 4]))):
        maps = saliency(loaded, crops, method=method, emotion=emotion, batch_size=2)
        assert_maps(maps, crops.shape[:-1])
    if name in ("lenet", "vit", "cnn_lstm"):  # maps, tokens and clips
        for method in METHODS:
            maps = saliency(loaded, crops[:2], method=method, emotion=1, channels=3, steps=2)
            assert_maps(maps, crops[:2].shape[:-1])
        assert_maps(occlusion(loaded, crops[:1], patch=0.5, places=2), crops[:1].shape[:-1])
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


def places_matter():
    """A network whose every gradient is known: two maps, red and green, then a dense layer that knows places.

    Returns the engine, one crop, its maps A (2, 32, 32) and the gradients of emotion 1 by them.
    """
    rng = np.random.default_rng(3)
    crops = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="maps")(crops)
    model = keras.Model(crops, keras.layers.Dense(2, name="head")(keras.layers.Flatten()(x)))
    model.get_layer("maps").set_weights([np.array([[1, 0], [0, 1], [0, 0]], np.float32)[None, None]])
    kernel = rng.normal([[0, 5e-6], [0, -5e-6]], 1e-5, (32, 32, 2, 2)).astype(np.float32)  # red for b, green against
    model.get_layer("head").set_weights([kernel.reshape(-1, 2), np.zeros(2)])
    card = ModelCard(name="places", architecture="lenet", emotions=("a", "b"), image_size=32)
    crop = rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    return KerasEngine(model, card), crop, np.moveaxis(crop[0, ..., :2], -1, 0).astype(float), kernel


def by_hand(method, a, kernel):
    """The maps of `places_matter`, as the papers' equations have them, one number at a time where it matters."""
    g = np.moveaxis(kernel[..., 1], -1, 0).astype(float)
    if method == "grad_cam":
        return sum(g[k].mean() * a[k] for k in range(2))
    if method == "hires_cam":
        return sum(g[k] * a[k] for k in range(2))
    if method == "layer_cam":
        return sum(np.maximum(g[k], 0) * a[k] for k in range(2))
    if method == "grad_cam_pp":
        total = 0
        for k in range(2):  # Y = exp(S): its second and third derivative are powers of the first, equation 19
            score = np.exp(sum((g[j] * a[j]).sum() for j in range(2)))
            alpha = score * g[k] ** 2 / (2 * score * g[k] ** 2 + score * g[k] ** 3 * a[k].sum())
            alpha = np.where(g[k] > 0, alpha, 0)
            total += (alpha / alpha.sum() * score * np.maximum(g[k], 0)).sum() * a[k]
        return total
    assert method == "score_cam"
    total = 0
    pixels = np.stack([*a, 0 * a[0]])
    middle = pixels.mean(axis=(1, 2), keepdims=True)
    for k in range(2):
        seen = (a[k] - a[k].min()) / np.ptp(a[k])
        masked = middle + seen * (pixels - middle)
        logits = np.einsum("kyx,yxkc->c", masked[:2], kernel)
        total += softmax(logits)[1] * a[k]
    return total


@pytest.mark.parametrize("method", [m for m in METHODS if m != "integrated_gradients"])
def test_every_method_is_its_papers_equation(method):
    loaded, crop, a, kernel = places_matter()
    (salient,) = saliency(loaded, crop, method=method, emotion=1, layer="maps", batch_size=1)
    expected = np.maximum(by_hand(method, a, kernel), 0)
    assert expected.any() and (method in ("score_cam", "grad_cam_pp", "layer_cam") or not expected.all())
    np.testing.assert_allclose(salient, expected / expected.max(), atol=1e-4)


def test_score_cam_can_keep_to_the_maps_that_vary_most():
    loaded, crop, a, _ = places_matter()
    crop[..., 1] = crop[..., 1] // 4 + 90  # green varies less: red alone is left
    (salient,) = saliency(loaded, crop, method="score_cam", emotion=1, layer="maps", channels=1)
    np.testing.assert_allclose(salient, a[0] / a[0].max(), atol=1e-5)


def test_integrated_gradients_of_a_square_are_known():
    """F = S ** 2 with S = w . x: on the way from x' to x pixel i adds w_i (x_i - x'_i) (S + S')."""
    crops = keras.Input((32, 32, 3))
    total = keras.layers.Dense(2, use_bias=False, name="sum")(keras.layers.Flatten()(crops))
    model = keras.Model(crops, keras.layers.Lambda(lambda s: s**2)(total))
    w = np.random.default_rng(0).normal(0, 1e-4, (32 * 32 * 3, 2)).astype(np.float32)
    model.get_layer("sum").set_weights([w])
    card = ModelCard(name="square", architecture="lenet", emotions=("a", "b"), image_size=32)
    crop = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    plane = np.broadcast_to(crop.mean(axis=(1, 2), keepdims=True), crop.shape)
    sums = [float(x.reshape(-1).astype(float) @ w[:, 1]) for x in (crop, plane)]
    expected = w[:, 1].reshape(crop.shape) * (crop - plane) * sum(sums)
    found = integrated_gradients(KerasEngine(model, card), crop, emotion=1, steps=5, batch_size=2)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_integrated_gradients_are_complete():
    """The signed attributions of a trained network sum to the difference of the logits, every crop's own."""
    loaded, crops = load_keras(paths.MODELS / "lenet"), draw_faces(6, seed=5).crops(48)
    plane = np.broadcast_to(crops.mean(axis=(1, 2), keepdims=True, dtype=np.float32), crops.shape)
    whole, empty = (loaded.model.predict_on_batch(x.astype(np.float32)) for x in (crops, plane))
    for emotion in (None, 3):
        k = whole.argmax(axis=1) if emotion is None else np.full(6, emotion)
        difference = (whole - empty)[np.arange(6), k]
        found = integrated_gradients(loaded, crops, emotion=emotion, steps=128).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(found, difference, atol=0.02 * np.abs(difference).max())
        assert np.abs(difference).max() > 1


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp", "layer_cam", "score_cam"])
def test_tf_keras_vis_agrees(method):
    """Another implementation, where it is installed: same network, same layer, the same maps."""
    pytest.importorskip("tf_keras_vis", reason="tf-keras-vis is not installed (pip install tf-keras-vis)")
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.scores import CategoricalScore

    def network(*first):
        pixels = x = keras.Input((32, 32, 3))
        for layer in first:
            x = layer(x)
        x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="maps")(x)
        x = keras.layers.AveragePooling2D(4)(x)
        x = keras.layers.Dense(8, activation="relu", name="hidden")(keras.layers.Flatten()(x))
        return keras.Model(pixels, keras.layers.Dense(3, name="logits")(x))

    keras.utils.set_random_seed(4)
    crop = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    mean = crop.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    around = network()  # theirs fades to 0: it gets pixels around their mean colour, to which ours fades
    model = network(keras.layers.Normalization(mean=mean.ravel(), variance=np.full(3, 32.0**2)))
    for name in ("maps", "hidden", "logits"):
        model.get_layer(name).set_weights(around.get_layer(name).get_weights())
    card = ModelCard(name="peer", architecture="lenet", emotions=("a", "b", "c"), image_size=32)
    ours = saliency(KerasEngine(model, card), crop, method=method, emotion=2, layer="maps")
    peer = {"grad_cam": Gradcam, "grad_cam_pp": GradcamPlusPlus, "layer_cam": Layercam, "score_cam": Scorecam}[method]
    # Ours, as the authors' code, counts places of positive gradient alone; theirs does so when it gets no others.
    more = {"gradient_modifier": keras.ops.relu} if method == "grad_cam_pp" else {}
    theirs = peer(around)(CategoricalScore(2), (crop - mean) / 32, penultimate_layer="maps", **more)
    scaled = (ours - ours.min()) / np.ptp(ours)  # theirs stretches a map from its least value, too
    assert np.ptp(ours) > 0.2
    np.testing.assert_allclose(scaled, theirs, atol=1e-3)


def test_occlusion_finds_what_an_onnx_engine_looks_at(colours):
    """The engine of red and blue: covering the red corner lowers "happy", covering the rest adds red to it."""
    crops = np.zeros((2, 48, 48, 3), np.uint8)
    crops[0, :12, :12, 0] = crops[1, 24:36, 12:24, 2] = 200
    happy, sad = (labels.FER2013.index(name) for name in ("happy", "sad"))
    expected = np.zeros((2, 48, 48), np.float32)
    expected[0, :12, :12] = expected[1, 24:36, 12:24] = 1
    for emotion in (None, np.array([happy, sad])):
        found = occlusion(colours, crops, emotion=emotion, patch=0.25, places=4, batch_size=5)
        np.testing.assert_array_equal(found, expected)
    assert not occlusion(colours, crops, emotion=labels.FER2013.index("fear")).any()
    smooth = occlusion(colours, crops)  # patches that overlap: their mean
    assert smooth[0, :12, :12].min() > 0.3 and smooth[0].argmax() == 0 and not smooth[0, 26:].any()


def test_a_branch_is_explained_by_its_own_logits():
    esr = engine("esr")
    crops = np.random.default_rng(0).integers(0, 256, (3, *esr.card.input_shape), dtype=np.uint8)
    own = branch_engines(esr)
    assert len(own) == 2 and not branch_engines(engine("lenet"))
    for k, branch in enumerate(own):
        np.testing.assert_allclose(branch.logits(crops), esr.run(crops)["branches"][:, k], atol=1e-5)
    first, second = (saliency(branch, crops, emotion=1, layer="base_relu_4") for branch in own)
    assert not np.allclose(first, second, atol=0.05)


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
        ({"method": "magic_cam"}, "known are grad_cam, grad_cam_pp, hires_cam"),
        ({"emotion": 7}, r"an index 0\.\.6, or one for each of 5 crops, got int64 \(\): 7"),
        ({"emotion": [0, 1]}, r"one for each of 5 crops, got int64 \(2,\)"),
        ({"emotion": 0.5}, "got float64"),
        ({"emotion": -1, "method": "integrated_gradients"}, r"an index 0\.\.6"),
        ({"method": "score_cam", "channels": 0}, "channels must be 1 or more"),
        ({"method": "integrated_gradients", "steps": 0}, "steps must be 1 or more"),
    ],
)
def test_unfit_choices(choice, message):
    with pytest.raises(ValueError, match=message):
        saliency(engine("lenet"), CROPS, **choice)


def test_no_crops_give_no_maps():
    lenet = engine("lenet")
    for method in METHODS:
        assert saliency(lenet, CROPS[:0], method=method).shape == (0, 48, 48)
    assert occlusion(lenet, CROPS[:0]).shape == (0, 48, 48)


@pytest.mark.parametrize("choice", [{"patch": 0}, {"patch": 1.5}, {"places": 0}])
def test_occlusion_refuses_a_patch_that_is_none(choice):
    with pytest.raises(ValueError, match="patch must be a share"):
        occlusion(engine("lenet"), CROPS[:1], **choice)
