import pytest
from train_mini.config import load_config


def test_committed_configurations_load():
    from pathlib import Path

    folder = Path(__file__).parents[3] / "configs" / "train"
    paths = sorted(folder.glob("*.yaml"))
    assert paths
    for path in paths:
        assert load_config(path).schema_ == 1


def test_unknown_keys_and_wrong_values_are_named_with_the_file(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("schema: 1\ntransformer: {widht: 64, attention: both}\n")
    with pytest.raises(ValueError, match="wrong.yaml:2: transformer.widht") as error:
        load_config(path)
    assert "transformer.attention" in str(error.value)
    assert "full" in str(error.value)


def test_a_start_that_is_no_model_is_refused_before_anything_is_written(tiny_file, tmp_path):
    path = tiny_file()
    path.write_text(f"{path.read_text()}start: {tmp_path / 'nowhere'}\n")
    with pytest.raises(ValueError, match="nowhere holds no model_index.json. Name the folder"):
        load_config(path)


def test_a_missing_file_names_one_that_exists(tmp_path):
    with pytest.raises(ValueError, match=r"none.yaml: no such file. Try configs/train/mini.yaml"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema: 1\nis_compiled: off\n", "wrong.yaml:2: .*off.*false"),
        ("schema: 1\nseed: 1\nseed: 2\n", "wrong.yaml:3: .*seed"),
        ("schema: 1\ncodec: {minutes: .nan}\n", "wrong.yaml:2: .*nan"),
        ("schema: 1\nseed: '3'\n", "wrong.yaml:2: seed: .*valid integer"),
        ("", "wrong.yaml.*is empty"),
        ("schema: 1\ndevice: quantum\n", "wrong.yaml:2: device: .*cuda"),
        ("schema: 1\nthreads: 1000000000000000000\n", "wrong.yaml:2: threads"),
        ("schema: 1\ncodec: {scaling_power: 1e300}\n", "wrong.yaml:2: codec.scaling_power"),
    ],
)
def test_traps_of_yaml_are_refused_with_their_line(tmp_path, text, words):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load_config(path)


def test_a_new_transformer_without_a_start_is_refused(tiny_file):
    with pytest.raises(ValueError, match="--set anew=true: anew has an effect beside `start`"):
        load_config(tiny_file(), ["anew=true"])


def test_a_loaded_configuration_cannot_be_changed(tiny_file):
    config = load_config(tiny_file())
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3
