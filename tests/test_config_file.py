"""A bad configuration is told by key, value and rule before anything starts."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.config import PipelineConfig
from pipeline.config_file import known_configs, load_config

MINIMAL = """
name: run
model_name: model
data: {path: texts}
training: {steps: 10, warmup_steps: 2}
evaluation: {max_perplexity: 100}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a YAML file and returns its path."""

    def write_file(text: str) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return str(path)

    return write_file


def problems_of(path: str, *overrides: str) -> list[str]:
    """The lines of the error that loading raises, the first naming the file and the settings."""
    with pytest.raises(ValueError, match="does not describe a run") as failure:
        load_config(path, overrides)
    first, *problems = str(failure.value).splitlines()
    assert re.fullmatch(f"{re.escape(path)}( with --set .*)? does not describe a run:", first)
    return [problem.strip() for problem in problems]


def test_a_minimal_file_is_completed_by_gpt2_small_and_a_laptops_defaults(write):
    config = load_config(write(MINIMAL))
    model = config.model
    assert (model.vocab_size, model.max_length, model.embedding_dim) == (50257, 1024, 768)
    assert (model.num_layers, model.num_heads, model.feed_forward_dim) == (12, 12, 3072)
    assert (model.dropout, model.layer_norm_epsilon) == (0.1, 1e-6)
    assert config.training.strategy.name == "one_device"
    assert (config.data.eval_share, config.data.max_refused_share) == (0.1, 0.001)
    assert config.data.eval_spans == 7
    assert (config.evaluation.min_improvement, config.evaluation.max_forgetting) == (0, 0.01)
    assert config.stride == 1024
    assert config.start == "scratch"
    assert config.cache is True
    assert (config.serving.host, config.serving.port) == ("127.0.0.1", 8500)
    assert config.beam.arguments() == [
        "--runner=components.direct_runner.DirectRunner",
        "--direct_running_mode=in_memory",
        "--direct_num_workers=1",
        "--sdk_container_image=none",
    ]


def test_all_that_a_run_writes_lies_below_output(write):
    config = load_config(write(MINIMAL), ["output=/else/where"])
    assert config.metadata_path == "/else/where/metadata.db"
    assert config.serving_base == "/else/where/serving/model"
    assert config.checkpoints == "/else/where/checkpoints"
    assert config.pipeline_root == "/else/where/pipeline/run"
    assert config.refused_folder == "/else/where/refused/run"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        # Unknown keys, at the top and below.
        ("steps=5", "steps: unknown key (value 5)"),
        ("training.lr=0.1", "training.lr: unknown key (value 0.1)"),
        ("training.strategy.kind=x", "training.strategy.kind: unknown key (value 'x')"),
        # Values out of their range.
        ("training.steps=0", "training: steps must be >= 1, got 0"),
        ("training.warmup_steps=10", "training: warmup_steps must be in [0, steps=10), got 10"),
        ("training.learning_rate=-1.0", "training: learning_rate must be > 0 and finite, got -1.0"),
        ("training.learning_rate=.nan", "training: learning_rate must be > 0 and finite, got nan"),
        ("training.beta_2=1.0", "training: beta_2 must be in [0, 1), got 1.0"),
        ("model.num_layers=0", "model: num_layers must be a whole number >= 1, got 0"),
        ("model.dropout=1.0", "model: dropout must be in [0, 1), got 1.0"),
        (
            "model.num_heads=7",
            "model: num_heads must divide embedding_dim, got num_heads=7 and embedding_dim=768",
        ),
        (
            "model.vocab_size=50000",
            "model.vocab_size must be 50257, the size of GPT-2's vocabulary, got 50000",
        ),
        ("data.eval_share=0", "data: eval_share must be in [0.001, 0.999], got 0.0"),
        ("data.max_refused_share=1.5", "data: max_refused_share must be in [0, 1], got 1.5"),
        (
            "data.corpus=shakespeare",
            "data: exactly one of path and corpus must be given, the other be null, "
            "got 'texts' and 'shakespeare'",
        ),
        (
            "data.path=null",
            "data: exactly one of path and corpus must be given, the other be null, "
            "got None and None",
        ),
        (
            "data={corpus: hamlet}",
            "data: corpus must be one of ['sample', 'shakespeare'], got 'hamlet'",
        ),
        ("data.eval_spans=-1", "data: eval_spans must be >= 0, got -1"),
        (
            "evaluation.max_forgetting=-0.1",
            "evaluation: max_forgetting must be >= 0 and finite, got -0.1",
        ),
        (
            "evaluation.max_forgetting=.inf",
            "evaluation: max_forgetting must be >= 0 and finite, got inf",
        ),
        ("evaluation.max_perplexity=0.9", "evaluation: max_perplexity must be >= 1, got 0.9"),
        ("evaluation.min_improvement=1", "evaluation: min_improvement must be in [0, 1), got 1.0"),
        (
            "evaluation.stride=1025",
            "evaluation.stride must be in [1, model.max_length=1024], got 1025",
        ),
        (
            "evaluation.stride=0",
            "evaluation.stride must be in [1, model.max_length=1024], got 0",
        ),
        ("beam.workers=0", "beam: workers must be >= 1, got 0"),
        ("serving.port=70000", "serving: port must be in [0, 65535], got 70000"),
        (
            "serving.int8=true",
            "serving: xla must be true where int8 is true, which is slow without",
        ),
        (
            "training.strategy.num_devices=2",
            "training.strategy: num_devices is for strategy 'mirrored' only, got "
            "name='one_device' with num_devices=2",
        ),
        (
            "training.strategy={name: mirrored, num_devices: 3}",
            "training: global_batch_size must be a multiple of num_devices * accumulation_steps "
            "= 3, got 8",
        ),
        # Values of a wrong type.
        (
            "training.steps=many",
            "training.steps: Input should be a valid integer, got 'many'",
        ),
        (
            "training.steps=1.5",
            "training.steps: Input should be a valid integer, got 1.5",
        ),
        (
            "training=fast",
            "training: Input should be an object, got 'fast'",
        ),
        ("beam.options=--x", "beam.options: Input should be a valid array, got '--x'"),
        (
            "beam.running_mode=quick",
            "beam.running_mode: Input should be 'in_memory', 'multi_threading' or "
            "'multi_processing', got 'quick'",
        ),
        (
            "training.strategy.name=mirror",
            "training.strategy.name: Input should be 'one_device', 'mirrored' or "
            "'multi_worker', got 'mirror'",
        ),
        ("start=5", "start: Input should be a valid string, got 5"),
        ("start=null", "start: Input should be a valid string, got None"),
        ("name=5", "name: Input should be a valid string, got 5"),
        (
            "cache=perhaps",
            "cache: Input should be a valid boolean, got 'perhaps'",
        ),
    ],
)
def test_a_bad_value_is_told_by_its_key_the_value_and_the_rule(write, override, problem):
    assert problems_of(write(MINIMAL), override) == [problem]


def test_weights_in_8_bits_cannot_be_what_training_starts_from(write):
    path, int8 = write(MINIMAL), ["serving.xla=true", "serving.int8=true"]
    assert load_config(path, int8).serving.int8
    assert problems_of(path, *int8, "start=production") == [
        "start must not be 'production' where serving.int8 is true: weights in 8 bits "
        "can't be trained further"
    ]


def test_the_model_is_named_like_the_pipeline_when_it_has_no_name_of_its_own(write):
    assert load_config(write(MINIMAL), ["name=mine", "model_name=''"]).model_name == "mine"
    assert load_config(write(MINIMAL), ["name=mine", "model_name=yours"]).model_name == "yours"


def test_an_empty_name_is_refused(write):
    (problem,) = problems_of(write(MINIMAL), "name=''")
    assert problem.startswith("name must be letters, digits, '-', '_', '.'")


@pytest.mark.parametrize("field", ["name", "model_name"])
@pytest.mark.parametrize("value", ["..", ".hidden", "a/b", "a b", "-rf"])
def test_a_name_that_is_no_good_folder_name_is_refused(write, field, value):
    (problem,) = problems_of(write(MINIMAL), f"{field}={value}")
    assert problem.startswith(f"{field} must be letters, digits, '-', '_', '.'")
    assert problem.endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("missing", "key"),
    [
        ("name: run\n", "name"),
        ("data: {path: texts}\n", "data"),
        ("training: {steps: 10, warmup_steps: 2}\n", "training"),
        ("evaluation: {max_perplexity: 100}\n", "evaluation"),
        ("steps: 10, ", "training.steps"),
        ("max_perplexity: 100", "evaluation.max_perplexity"),
    ],
)
def test_a_missing_key_is_told(write, missing, key):
    assert MINIMAL.count(missing) == 1
    path = write(MINIMAL.replace(missing, ""))
    assert problems_of(path) == [f"{key}: required, but not given"]


def test_the_settings_that_came_on_top_of_the_file_are_named(write):
    path = write(MINIMAL)
    with pytest.raises(ValueError, match="does not describe a run") as failure:
        load_config(path, ["training.steps=0", "data={corpus: hamlet}"])
    assert str(failure.value).splitlines()[0] == (
        f"{path} with --set training.steps=0 --set 'data={{corpus: hamlet}}' "
        "does not describe a run:"
    )


def test_all_problems_are_told_at_once(write):
    problems = problems_of(
        write(MINIMAL), "training.steps=0", "model.num_heads=5", "colour=red", "data.spans=perhaps"
    )
    assert [problem.split(":")[0] for problem in sorted(problems)] == [
        "colour", "data.spans", "model", "training"
    ]  # fmt: skip


def test_overrides_replace_add_and_create_values_read_as_yaml(write):
    config = load_config(
        write(MINIMAL),
        [
            "training.steps=20",
            "training.learning_rate=1e-3",  # to YAML 1.1 a string, to everybody else a number
            "model.num_layers=2",
            "training.strategy.num_devices=4",
            "training.strategy.name=mirrored",
            "beam.options=[--temp_location=/tmp, --x=1]",
            "cache=false",
            "data.path=my texts",
        ],
    )
    assert config.training.steps == 20
    assert config.training.warmup_steps == 2
    assert config.training.learning_rate == 0.001
    assert config.model.num_layers == 2
    strategy = config.training.strategy
    assert (strategy.name, strategy.num_devices) == ("mirrored", 4)
    assert config.beam.arguments()[-2:] == ["--temp_location=/tmp", "--x=1"]
    assert config.cache is False
    assert config.data_folder == "my texts"


@pytest.mark.parametrize("name", ["2e3-run", "5e8c1f0", "1e5.5"])
def test_what_only_begins_like_a_number_is_a_string(write, name):
    assert load_config(write(MINIMAL), [f"name={name}"]).name == name


def test_what_only_begins_like_a_number_is_refused_where_one_is_due(write):
    with pytest.raises(ValueError, match=r"training\.learning_rate.*'1e-4x'"):
        load_config(write(MINIMAL), ["training.learning_rate=1e-4x"])


def test_where_training_starts_is_taken_as_it_is_given(write):
    # Whether there are weights is looked up when the run begins, see tests/test_start.py.
    for start in ("scratch", "production", "weights of mine/gpt2"):
        assert load_config(write(MINIMAL), [f"start={start}"]).start == start


def test_the_last_of_several_overrides_of_one_key_holds(write):
    assert load_config(write(MINIMAL), ["name=a", "name=b"]).name == "b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", "an override must look like training.steps=100, got 'training.steps'"),
        ("=5", "an override must look like training.steps=100, got '=5'"),
        ("training..steps=5", "got 'training..steps=5'"),
        ("training.steps.x=5", "'training.steps.x=5': steps has no keys below it"),
        ("beam.options=[1", "'beam.options=[1': the value is not YAML"),
    ],
)
def test_an_override_that_makes_no_sense_is_told(write, override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config(write(MINIMAL), [override])


def test_our_own_configurations_all_load():
    configs = {name: load_config(name) for name in known_configs()}
    assert set(configs) >= {"tiny", "shakespeare", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"}
    assert all(isinstance(config, PipelineConfig) for config in configs.values())


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        # Layers, width, heads: Radford et al. 2019, table 2, and openai/gpt-2's hparams.json.
        ("gpt2", (12, 768, 12)),
        ("gpt2-medium", (24, 1024, 16)),
        ("gpt2-large", (36, 1280, 20)),
        ("gpt2-xl", (48, 1600, 25)),
    ],
)
def test_the_large_configurations_have_the_sizes_of_openais_models(name, sizes):
    model = load_config(name).model
    assert (model.num_layers, model.embedding_dim, model.num_heads) == sizes
    assert (model.max_length, model.vocab_size) == (1024, 50257)
    assert model.feed_forward_dim == 4 * model.embedding_dim


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path):
    missing = str(tmp_path / "missing.yaml")
    for name in ("gpt3", missing):
        with pytest.raises(ValueError, match=r"config must be a YAML file or one of gpt2, ") as e:
            load_config(name)
        assert "shakespeare, tiny" in str(e.value)
        assert str(e.value).endswith(f"got {name!r}, which is no file")


@pytest.mark.parametrize("text", ["a: [1\n", "\tname: x\n", "a: b: c\n"])
def test_a_file_that_is_not_yaml_is_told_with_the_place(write, text):
    path = write(text)
    with pytest.raises(ValueError, match=rf"^{re.escape(path)} is not YAML: (?s:.*)line \d"):
        load_config(path)


def test_an_empty_key_is_told_beside_all_other_problems(write):
    path = write(MINIMAL.replace("{steps: 10, warmup_steps: 2}", "{steps: 0}") + "'': 1\n")
    assert problems_of(path) == [
        "training: steps must be >= 1, got 0",
        "the file: unknown key (value 1)",
    ]


def test_a_key_that_is_given_twice_is_told_with_both_places(write):
    path = write("data:\n  path: x\n  # again\n  path: y\n")
    with pytest.raises(ValueError, match=f"^{path} is not YAML: key 'path' is given\\n") as e:
        load_config(path)
    assert "line 2, column 3" in str(e.value)
    assert "line 4, column 3" in str(e.value)


def test_one_mapping_may_be_merged_into_another(write):
    fields = f"{MINIMAL}model:\n  <<: {{max_length: 64}}\n  num_layers: 3\n"
    model = load_config(write(fields)).model
    assert (model.max_length, model.num_layers) == (64, 3)


def test_a_file_that_is_not_text_is_told(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ValueError, match=f"{path} is not YAML: .*0xff"):
        load_config(str(path))


@pytest.mark.parametrize(("text", "type_name"), [("", "NoneType"), ("- a\n", "list"), ("7", "int")])
def test_a_file_without_keys_is_told(write, text, type_name):
    path = write(text)
    with pytest.raises(ValueError, match=f"{path} must hold keys and values, got {type_name}"):
        load_config(path)


def test_a_configuration_is_not_changed_by_loading_another_with_overrides():
    changed = load_config("tiny", ["training.steps=7", "training.warmup_steps=1"])
    folder = Path(__file__).parent.parent / "pipeline" / "configs"
    written = yaml.safe_load((folder / "tiny.yaml").read_text())
    assert changed.training.steps == 7
    assert load_config("tiny").training.steps == written["training"]["steps"] != 7
