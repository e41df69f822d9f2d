import pytest

from fer_tf.training.recipe import RECIPES, Augmentation, Recipe, find_recipe, with_texts


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_a_recipe_survives_its_file(tmp_path, suffix):
    recipe = Recipe(
        architecture="mobilenet_v2",
        options={"dropout": 0.1},
        patience=3,
        notice="From Émile's network \U0001f600",
        augmentation=Augmentation(rotate=0.0, erase=0.1),
    )
    recipe.save(tmp_path / f"recipe{suffix}")
    assert Recipe.load(tmp_path / f"recipe{suffix}") == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be above 0"),
        ({"learning_rate": "fast"}, "learning_rate must be float"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": 2.5}, "epochs must be int"),
        ({"seed": True}, "seed must be int"),
        ({"batch_size": 0}, "batch_size"),
        ({"patience": 0}, "patience"),
        ({"schedule": "linear"}, "schedule must be constant or step"),
        ({"architecture": "lenot"}, "unknown architecture 'lenot'; known are lenet"),
        ({"learning_rat": 0.1}, "has no 'learning_rat'"),
        ({"augmentation": {"flip": "False"}}, "augmentation.flip must be bool"),
        ({"augmentation": {"flop": True}}, "augmentation has no 'flop'"),
        ({"augmentation": {"shift": 2.0}}, "augmentation.shift"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number, got inf"),
        ({"warmup_epochs": float("nan")}, "warmup_epochs must be a finite number"),
        ({"gradient_clip": float("inf")}, "gradient_clip must be a finite number"),
        ({"augmentation": {"rotate": float("-inf")}}, "augmentation.rotate must be a finite number"),
        ({"targets": "votes"}, "targets must be auto or labels or distribution or probability or multi_target"),
        ({"targets": "multi_target", "label_smoothing": 0.1}, "label_smoothing must be 0 with targets multi_target"),
        ({"teachers": [3]}, "teachers must be a list of models, got"),
        ({"teachers": ["lenet"], "targets": "labels"}, "targets must be auto, blend or another that looks at votes"),
        ({"teachers": ["lenet"], "architecture": "cnn_lstm"}, "teachers must be none for a network of clips"),
        ({"options": {"window": 4}}, "options must be without a window, for lenet takes single pictures"),
        ({"branch_epochs": -1}, "branch_epochs must be 0 or more"),
        ({"branch_epochs": 1, "head_epochs": 1, "epochs": 0}, "epochs must be at least 1 after branch_epochs"),
        ({"options": {"weights": "imagenet"}}, "options must be the architecture's own"),
    ],
)
def test_a_wrong_choice_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe().with_(**changes)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.toml", "epochs = ", "r.toml"),
        ("r.json", "{", "r.json"),
        ("r.json", "3", "table of choices"),
        ("r.yaml", "", ".toml or .json"),
        ("r.toml", "a = 1", "'a'"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Recipe.load(tmp_path / name)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_of_the_package_is_valid_and_says_what_to_expect(path):
    recipe = find_recipe(path.stem)
    assert path.stem.startswith(recipe.architecture) and path.stem.endswith(f"_{recipe.dataset}")
    assert path.read_text(encoding="utf-8").startswith("# Expected:")


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"one of .*lenet_drawn, lenet_fer2013"):
        find_recipe("lenet_mnist")


def test_changes_from_the_command_line():
    recipe = with_texts(
        Recipe(), ["epochs=3", "schedule=step", "augmentation.flip=false", "patience=2", "options={dropout=0.1}"]
    )
    assert (recipe.epochs, recipe.schedule, recipe.augmentation.flip, recipe.patience) == (3, "step", False, 2)
    assert recipe.options == {"dropout": 0.1} and with_texts(recipe, ["patience=none"]).patience is None
    began = recipe.with_(weights="a", notice="From a.")
    assert with_texts(began, ["weights=b"]).notice == "" and with_texts(began, ["epochs=2"]).notice == "From a."
    assert with_texts(began, ["weights=b", "notice=From b."]).notice == "From b."
    for change, message in [
        ("epochs", "NAME=VALUE"),
        ("epochs=x", "epochs must be int"),
        ("augmentation.x=1", "'x'"),
        ("weight_decay=inf", "weight_decay must be a finite number"),
    ]:
        with pytest.raises(ValueError, match=message):
            with_texts(recipe, [change])
