import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import small_options, small_size

from fer_tf import zoo
from fer_tf.zoo import vit

NAMES = list(zoo.ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_rgb_in_logits_out_judged_in_grey(name):
    """A colour picture and its luma give the same logits: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""
    size = small_size(name)
    model = zoo.build(name, emotions=5, image_size=size, **small_options(name))
    crops = np.random.default_rng(0).integers(0, 256, (3, *model.input_shape[1:]), dtype=np.uint8)
    logits = model.predict(crops, verbose=0)
    assert logits.shape == (3, 5) and logits.dtype == np.float32 and np.isfinite(logits).all()
    luma = crops @ np.array([0.299, 0.587, 0.114], np.float32)
    grey = np.repeat(luma[..., None], 3, axis=-1)
    np.testing.assert_allclose(model.predict(grey, verbose=0), logits, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("lenet", 32), ("mobilenet_v2", 70), ("vgg", 64), ("ferplus_vgg13", 40), ("vit", 72), ("swin", 96)],
)
def test_other_image_sizes(name, image_size):
    model = zoo.build(name, emotions=7, image_size=image_size)
    assert model.predict(np.zeros((1, image_size, image_size, 3), np.uint8), verbose=0).shape == (1, 7)


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_names_a_layer_with_a_map_and_a_head(name):
    model = zoo.build(name, emotions=7)
    side, window = zoo.architecture(name).image_size, zoo.architecture(name).window
    assert model.input_shape[1:] == ((side, side, 3) if window == 1 else (window, side, side, 3))
    outer, _, inner = zoo.architecture(name).saliency_layer.partition("/")
    layer = model.get_layer(outer).get_layer(inner) if inner else model.get_layer(outer)
    cells = layer.output.shape[1] * layer.output.shape[2] if len(layer.output.shape) == 4 else layer.output.shape[1]
    assert cells >= 36
    backbone = zoo.backbone_layers(model)
    assert 0 < len(backbone) < len(model.layers) and model.layers[-1].name == "head_logits"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: zoo.build("alexnet", emotions=7), ValueError, "known are lenet, mobilenet_v2, vgg"),
        (lambda: zoo.build("vgg", emotions=7, weights="imagenet"), ValueError, "no pretrained weights"),
        (lambda: zoo.build("ferplus_vgg13", emotions=8, weights="imagenet"), ValueError, "no pretrained weights"),
        (lambda: zoo.build("vit", emotions=7, size="huge"), ValueError, "known are nano, mini, tiny, small, base"),
        (lambda: zoo.build("vit", emotions=7, image_size=50), ValueError, "take image_size 48 or 54"),
        (lambda: zoo.build("vit", emotions=7, stem="x"), ValueError, "'patches' or 'convolutions', got 'x'"),
        (lambda: zoo.build("vit", emotions=7, stem="convolutions"), ValueError, "patches of 2, 4, 8 ... px, got 6"),
        (lambda: zoo.build("vgg", emotions=7, weights="none.keras"), FileNotFoundError, "model.keras of a trained net"),
        (
            lambda: zoo.build("vit", emotions=7, stem="convolutions", patch_size=1),
            ValueError,
            "patches of 2, 4, 8 ... px, got 1",
        ),
        (lambda: zoo.build("swin", emotions=7, image_size=48), ValueError, "a multiple of 32, got 48"),
        (lambda: zoo.build("swin", emotions=7, image_size=40, patch_size=2), ValueError, "a multiple of 16, got 40"),
        (lambda: zoo.build("esr", emotions=7, image_size=53), ValueError, "need image_size 54 or more, got 53"),
        (lambda: zoo.build("esr", emotions=7, weights="imagenet"), ValueError, "no pretrained weights"),
        (lambda: zoo.build("cnn_lstm", emotions=7, window=1), ValueError, "window must be 2 frames or more"),
        (lambda: zoo.build("cnn_lstm", emotions=7, backbone="esr"), ValueError, "with one head, got 'esr'"),
        (lambda: zoo.build("efficientnet_b4", emotions=7, size="b0"), ValueError, "has no option size"),
        (lambda: zoo.build("lenet", emotions=7, image_size=16), ValueError, "32 to 256 px, got 16"),
        (lambda: zoo.build("lenet", emotions=7, depth=3), ValueError, "has no option depth; it has"),
        (lambda: zoo.build("lenet", emotions=7, weights="imagenet"), ValueError, "no pretrained weights"),
        (lambda: zoo.build("lenet", emotions=7, dropout="a"), ValueError, "lenet's dropout must be a share.*got 'a'"),
        (lambda: zoo.build("lenet", emotions=7, dropout=7), ValueError, "0 or more and below 1, such as 0.3, got 7"),
        (lambda: zoo.build("lenet", emotions=7, dropout=float("nan")), ValueError, "dropout must be a share"),
        (lambda: zoo.build("lenet", emotions=7, dropout=True), ValueError, "dropout must be a share"),
        (lambda: zoo.build("lenet", emotions=7, dense=0), ValueError, "dense must be a whole number, 1 or more"),
        (lambda: zoo.build("lenet", emotions=7, dense=2.5), ValueError, "dense must be a whole number"),
        (lambda: zoo.build("lenet", emotions=7, filters="x"), ValueError, "filters must be a list"),
        (lambda: zoo.build("lenet", emotions=7, filters=[4, "x"]), ValueError, "filters must be a list"),
        (
            lambda: zoo.build("mobilenet_v2", emotions=7, norm_momentum=None),
            ValueError,
            "norm_momentum must be a share",
        ),
        (lambda: zoo.build("mobilenet_v2", emotions=7, weights="none.h5"), FileNotFoundError, "none.h5"),
        (lambda: zoo.build("cnn_lstm", emotions=7, weights="none"), FileNotFoundError, "none: expected a .keras file"),
        (lambda: zoo.build("cnn_lstm", emotions=7, backbone="cnn_lstm"), ValueError, "for single pictures"),
        (lambda: zoo.build("cnn_lstm", emotions=7, backbone="alexnet"), ValueError, "known are lenet"),
        (lambda: zoo.build("cnn_lstm", emotions=7, window=0), ValueError, "window must be a whole number, 1 or more"),
    ],
)
def test_bad_requests(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_ferplus_vgg13_is_the_published_network():
    """8.76 million numbers, as the 35,040,571 bytes of emotion-ferplus-8.onnx hold; a signal that does not fade."""
    model = zoo.build("ferplus_vgg13", emotions=8)
    assert model.count_params() == 8_757_704
    assert 4 * model.count_params() == pytest.approx(35_040_571, rel=1e-3)
    scaled = model.get_layer("rescale")(np.float32([[0, 127.5, 255]]))
    np.testing.assert_allclose(scaled, [[-0.5, 0, 0.5]], atol=1e-6)
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    assert 0.1 < model.predict(noise, verbose=0).std() < 10


def test_a_damaged_file_of_weights_is_named(tmp_path):
    (tmp_path / "cut.keras").write_bytes(b"PK\3\4 cut")
    with pytest.raises(ValueError, match=r"cut\.keras is damaged"):
        zoo.build("mobilenet_v2", emotions=7, weights=str(tmp_path / "cut.keras"))


@pytest.mark.parametrize("name", ["lenet", "vgg", "vit", "mobilenet_v2", "esr", "efficientnet_b0"])
def test_a_trained_network_is_where_one_with_other_emotions_starts(name, tmp_path):
    options = {"image_size": small_size(name), **small_options(name)}
    trained = zoo.build(name, emotions=7, **options)
    trained.set_weights([weights + 0.5 for weights in trained.get_weights()])
    trained.save(tmp_path / "model.keras")
    model = zoo.build(name, emotions=8, weights=str(tmp_path / "model.keras"), **options)
    assert model.output_shape == (None, 8)
    for layer in (layer for layer in zoo.backbone_layers(model) if layer.weights):
        for expected, found in zip(trained.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_efficientnet_takes_weights_of_keras_and_scales_pixels_as_they_want(tmp_path):
    made = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(48, 48, 3))
    (statistics,) = (layer for layer in made.layers if isinstance(layer, keras.layers.Normalization))
    made.save_weights(tmp_path / "plain.weights.h5")
    with pytest.raises(ValueError, match="scales pixels in another way than ImageNet's"):
        zoo.build("efficientnet_b0", emotions=7, image_size=48, weights=str(tmp_path / "plain.weights.h5"))
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    statistics.set_weights([mean, deviation, np.int64(0)])
    made.save_weights(tmp_path / "imagenet.weights.h5")
    model = zoo.build("efficientnet_b0", emotions=7, image_size=48, weights=str(tmp_path / "imagenet.weights.h5"))
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel, made.get_layer("stem_conv").kernel)
    grey = np.full((1, 48, 48, 3), 100, np.uint8)
    scaled = keras.Model(model.input, model.get_layer("normalise").output).predict(grey, verbose=0)
    np.testing.assert_allclose(scaled[0, 0, 0], (100 / 255 - mean) / deviation, rtol=1e-4)


def test_what_a_file_of_weights_cannot_fill_is_named(tmp_path):
    zoo.build("vgg", emotions=7, width=8).save(tmp_path / "model.keras")
    for name, options, words in (
        (
            "vgg",
            {"width": 16},
            r"does not fit vgg as it is built here: conv_1_1 is \[.*16\)\] here and .*8\)\]",
        ),
        ("vgg", {"width": 8, "stages": 3}, r"conv_4_1 is not here and \[\(3, 3, 32, 64\)\] there"),
        ("lenet", {}, "holds vgg; lenet starts from the model.keras of a trained lenet"),
    ):
        with pytest.raises(ValueError, match=words):
            zoo.build(name, emotions=7, weights=str(tmp_path), **options)


def test_a_start_that_scales_pixels_otherwise_is_refused(tmp_path):
    shape = {"width": 64, "blocks": 4, "heads": 4, "hidden": 256, "patch_size": 8, "dropout": 0.0}
    vit._build(7, 48, **shape, mean=(0.485, 0.456, 0.406)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="scales pixels in another way than vit does here"):
        zoo.build("vit", emotions=7, size="nano", patch_size=8, weights=str(tmp_path / "model.keras"))


def test_a_preset_of_swin_fits_the_size_that_it_was_made_for(tmp_path):
    import keras_hub

    small = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "patch_size": 4, "window_size": 6}
    keras_hub.models.SwinTransformerBackbone(image_shape=(48, 48, 3), **small).save_to_preset(str(tmp_path))
    model = zoo.build("swin", emotions=7, image_size=48, size="nano", weights=str(tmp_path))
    assert model.output_shape == (None, 7)
    with pytest.raises(ValueError, match="do not fit image_size 32"):
        zoo.build("swin", emotions=7, image_size=32, size="nano", weights=str(tmp_path))


def test_a_stem_of_convolutions_gives_a_vit_the_same_tokens():
    plain, stem = (zoo.build("vit", emotions=7, size="nano", patch_size=8, stem=s) for s in ("patches", "convolutions"))
    assert stem.get_layer("patches").output.shape == plain.get_layer("patches").output.shape == (None, 6, 6, 64)
    filters = [layer.filters for layer in stem.layers if layer.name.startswith("stem_conv")]
    assert filters == [16, 16, 32, 32, 64, 64]


def test_a_file_of_backbone_weights_lands_in_the_flat_graph(tmp_path):
    source = keras.applications.MobileNetV2(input_shape=(64, 64, 3), include_top=False, weights=None)
    source.save_weights(tmp_path / "backbone.weights.h5")
    model = zoo.build("mobilenet_v2", emotions=7, image_size=64, weights=str(tmp_path / "backbone.weights.h5"))
    for name in ("Conv1", "block_9_depthwise", "Conv_1_bn"):
        for expected, found in zip(
            source.get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    assert model.get_layer("Conv_1_bn").momentum == 0.9


def test_the_features_of_a_trained_network_land_in_the_temporal_one(tmp_path):
    """A frame's features are what the last layer of the frame network worked on, in the order of the frames."""
    frame = zoo.build("lenet", emotions=5, image_size=32, filters=[4, 4, 8], dense=6)
    frame.save(tmp_path / "model.keras")
    for weights in (tmp_path, tmp_path / "model.keras"):
        model = zoo.build("cnn_lstm", emotions=7, image_size=32, window=3, weights=str(weights), units=4)
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3)).astype(np.float32)
    found = keras.Model(model.input, model.get_layer("head_clips").output).predict(clips, verbose=0)
    last = keras.Model(frame.input, frame.get_layer("head_logits").input)
    for clip, features in zip(clips, found, strict=True):
        np.testing.assert_allclose(features, last.predict(clip, verbose=0), atol=1e-5)
    for choice, message in (({"backbone": "vgg"}, "holds lenet, but backbone is 'vgg'"), ({"image_size": 48}, "32 px")):
        with pytest.raises(ValueError, match=message):
            zoo.build("cnn_lstm", emotions=7, weights=str(tmp_path), **{"image_size": 32} | choice)
    (tmp_path / "model.keras").write_bytes(b"PK cut")
    with pytest.raises(ValueError, match=r"model\.keras is damaged"):
        zoo.build("cnn_lstm", emotions=7, image_size=32, weights=str(tmp_path))


def test_a_temporal_network_with_layers_of_a_vit_loads_again(tmp_path):
    """In a process of its own, which does not know the backbone's layers beforehand."""
    model = zoo.build("cnn_lstm", emotions=7, image_size=48, window=2, backbone="vit", units=8)
    model.save(tmp_path / "model.keras")
    clips = np.random.default_rng(0).integers(0, 256, (2, 2, 48, 48, 3), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    code = """import json, numpy as np; from pathlib import Path; from fer_tf import zoo
again = zoo.load_model(Path("model.keras"))
print(json.dumps(again.predict(np.load("clips.npy"), verbose=0).tolist()))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found, model.predict(clips, verbose=0), atol=1e-5)


def test_a_narrow_resnet_is_resnet50_with_fewer_filters(tmp_path):
    narrow, full = (zoo.build("resnet50", emotions=7, image_size=48, width=width) for width in (16, 64))
    assert [layer.name for layer in narrow.layers] == [layer.name for layer in full.layers]
    for layer in zoo.backbone_layers(full):
        assert narrow.get_layer(layer.name).output.shape[1:3] == layer.output.shape[1:3]
    assert narrow.get_layer("conv5_block3_out").output.shape[3] == 512 and narrow.count_params() < 1.6e6
    assert narrow.get_layer("conv1_bn").momentum == 0.9
    crops = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    centred = keras.Model(narrow.input, narrow.get_layer("centre").output).predict(crops, verbose=0)
    expected = keras.Model(full.input, full.get_layer("centre").output).predict(crops, verbose=0)
    np.testing.assert_array_equal(centred, expected)  # preprocessing is not narrowed


@pytest.mark.parametrize(
    ("name", "options"),
    [("vit", {"size": "nano", "patch_size": 8}), ("swin", {"size": "nano", "patch_size": 2})],
)
def test_sizes_for_lessons(name, options):
    model = zoo.build(name, emotions=7, image_size=48, **options)
    assert model.predict(np.zeros((2, 48, 48, 3), np.uint8), verbose=0).shape == (2, 7)
    assert model.count_params() < 2e6
