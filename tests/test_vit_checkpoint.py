"""Hugging Face checkpoints in our layers: transformers on PyTorch is the oracle, where PyTorch is installed."""

import json

import keras
import numpy as np
import pytest

from fer_tf import labels, zoo
from fer_tf.zoo.vit_checkpoint import interpolate, read_checkpoint, write_checkpoint

EMOTIONS = ["happy", "sadness", "Neutral", "anger", "fear", "disgust", "surprise"]  # another order, other spellings
SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}


@pytest.fixture(scope="module", params=["ViT", "DeiT"])
def oracle(request, tmp_path_factory):
    """A random model of transformers and the directory in which it saved itself."""
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    import transformers

    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(EMOTIONS)), "label2id": {}}
    config = getattr(transformers, f"{request.param}Config")(**SMALL, **names, image_size=48, patch_size=8)
    model = getattr(transformers, f"{request.param}ForImageClassification")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    statistics = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    processor = {"image_processor_type": f"{request.param}ImageProcessor", **statistics}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model, folder, statistics


def test_hidden_states_and_logits_agree_with_transformers(oracle):
    import torch

    theirs, folder, statistics = oracle
    ours = zoo.build("vit", emotions=7, image_size=48, weights=str(folder))
    grey = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1)).repeat(3, -1).astype(np.float32)
    normal = (grey / 255 - statistics["image_mean"]) / statistics["image_std"]
    with torch.no_grad():
        expected = theirs(torch.tensor(normal, dtype=torch.float32).permute(0, 3, 1, 2), output_hidden_states=True)
    blocks = [ours.get_layer(f"block_{k}_tokens").output for k in range(SMALL["num_hidden_layers"])]
    states = keras.Model(ours.input, blocks).predict(grey, verbose=0)
    for found, state in zip(states, expected.hidden_states[1:], strict=True):
        np.testing.assert_allclose(found, state.numpy(), atol=1e-4)
    order = [[labels.canonical(name) for name in EMOTIONS].index(emotion) for emotion in labels.FER2013]
    np.testing.assert_allclose(ours.predict(grey, verbose=0), expected.logits.numpy()[:, order], atol=1e-4)


def test_another_image_size_interpolates_positions_and_other_emotions_get_a_fresh_head(oracle):
    _, folder, _ = oracle
    model = zoo.build("vit", emotions=8, image_size=64, weights=str(folder))
    assert model.predict(np.zeros((1, 64, 64, 3)), verbose=0).shape == (1, 8)
    with pytest.raises(ValueError, match="patches of 8 px do not divide an image of 50 px"):
        zoo.build("vit", emotions=7, image_size=50, weights=str(folder))


def test_interpolation_keeps_prefix_and_corners():
    grid = np.arange(9.0, dtype=np.float32).reshape(1, 9, 1).repeat(6, axis=2)
    positions = np.concatenate([np.full((1, 1, 6), -7, np.float32), grid], axis=1)
    moved = interpolate(positions, tokens=1 + 36, prefix=1)
    assert moved.shape == (1, 37, 6) and (moved[0, 0] == -7).all()
    assert moved[0, 1, 0] == pytest.approx(0, abs=0.5) and moved[0, -1, 0] == pytest.approx(8, abs=0.5)
    assert interpolate(positions, tokens=10, prefix=1) is positions


def test_what_is_written_is_what_was_read(oracle, tmp_path):
    """transformers loads our directory and gives our logits; so do we, without PyTorch."""
    import torch
    import transformers

    theirs, folder, statistics = oracle
    ours = zoo.build("vit", emotions=7, image_size=48, weights=str(folder))
    write_checkpoint(ours, tmp_path / "ours", emotions=labels.FER2013)
    again = type(theirs).from_pretrained(tmp_path / "ours").eval()
    processor = transformers.ImageProcessingMixin.get_image_processor_dict(tmp_path / "ours")[0]
    for name, values in statistics.items():
        np.testing.assert_allclose(processor[name], values, atol=1e-6)
    grey = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1)).repeat(3, -1).astype(np.float32)
    normal = (grey / 255 - processor["image_mean"]) / processor["image_std"]
    with torch.no_grad():
        found = again(torch.tensor(normal, dtype=torch.float32).permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(found, ours.predict(grey, verbose=0), atol=1e-4)
    assert [again.config.id2label[k] for k in range(7)] == list(labels.FER2013)


def test_a_trained_network_comes_back_from_its_checkpoint(tmp_path):
    model = zoo.build("vit", emotions=8, image_size=48, size="nano", patch_size=8)
    write_checkpoint(model, tmp_path, emotions=labels.FERPLUS)
    again = zoo.build("vit", emotions=8, image_size=48, weights=str(tmp_path))
    crops = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    np.testing.assert_allclose(again.predict(crops, verbose=0), model.predict(crops, verbose=0), atol=1e-5)
    with pytest.raises(ValueError, match="the model has 8 logits, got 7 emotions"):
        write_checkpoint(model, tmp_path, emotions=labels.FER2013)


def rewrite(folder, target, change):
    """Copy a checkpoint with changed tensors."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors")
    (target / "config.json").write_text((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda t: t.pop(next(n for n in t if n.endswith("layer.1.output.dense.bias"))),
            "lacks 1 tensors.*layer.1.output",
        ),
        (lambda t: t.update(extra=np.zeros(3, np.float32)), "tensors that no ViT has, first extra"),
        (lambda t: t.update({n: v[:-1] for n, v in t.items() if n.endswith("layernorm.weight")}), "should be.*but is"),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_damaged_checkpoints_are_named(oracle, tmp_path, change, says):
    _, folder, _ = oracle
    rewrite(folder, tmp_path, change)
    with pytest.raises(ValueError, match=says):
        zoo.build("vit", emotions=7, image_size=48, weights=str(tmp_path))


def test_a_cut_file_of_tensors_is_named(oracle, tmp_path):
    _, folder, _ = oracle
    rewrite(folder, tmp_path, lambda tensors: None)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        zoo.build("vit", emotions=7, image_size=48, weights=str(tmp_path))


@pytest.mark.parametrize(
    "processor",
    [
        {},
        {"do_rescale": False, "image_mean": [100, 110, 120], "image_std": [50, 60, 70]},
        {"rescale_factor": 1 / 127.5, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [0.5, 1, 2]},
    ],
    ids=["usual", "no rescaling", "no normalising", "another factor"],
)
def test_pixels_are_prepared_as_their_processor_says(processor, tmp_path):
    model = zoo.build("vit", emotions=7, image_size=48, size="nano")
    write_checkpoint(model, tmp_path, emotions=labels.FER2013)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    again = zoo.build("vit", emotions=7, image_size=48, weights=str(tmp_path))
    pixels = np.full((1, 48, 48, 3), 200, np.float32)
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1
    expected = pixels * factor
    if processor.get("do_normalize", True):
        expected = (expected - processor.get("image_mean", 0.5)) / processor.get("image_std", 0.5)
    prepared = keras.Model(again.input, again.get_layer("rescale").output).predict(pixels, verbose=0)
    np.testing.assert_allclose(prepared, expected, rtol=1e-5)


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="it has no config"):
        read_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="expected a vit or deit"):
        read_checkpoint(str(tmp_path))


def test_a_stem_of_convolutions_has_no_place_in_a_checkpoint(tmp_path):
    model = zoo.build("vit", emotions=7, size="nano", patch_size=8, stem="convolutions")
    with pytest.raises(ValueError, match="has no stem of convolutions"):
        write_checkpoint(model, tmp_path, emotions=labels.FER2013)
