"""A run's configuration, each value checked; `pipeline.config_file` reads it."""

import dataclasses
import math
from importlib import resources

from data.corpora import CORPORA, SAMPLE
from model.config import GPT2Config
from model.tokenizer import VOCAB_SIZE
from model.training_config import TrainingConfig
from pipeline.beam_config import BeamConfig
from pipeline.kubeflow_config import KubeflowConfig
from serving.options import ServerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Says which texts are read.

    Args:
        path: A folder of `.txt`, `.jsonl`, `.jsonl.gz` and `.parquet` files, taken as they are.
        corpus: Instead of `path`: a corpus that `data.prepare` fetches, such as `shakespeare`, or
            `sample`, the small one that comes with the code.
        spans: Train on the newest of the folders `span-<number>` in `path`, and evaluate on it and
            on earlier ones.
        eval_spans: From how many earlier spans, spread evenly from the first to the last, the
            evaluation's documents are taken too. By default so many that, of spans of one size
            and with the default `eval_share`, evaluation has fewer documents than training,
            however many spans there are.
        eval_share: Share of the documents that is for evaluation. With a larger one than before,
            documents that production was trained on are evaluated on too.
        max_refused_share: Share of bad records above which the run fails.
    """

    path: str | None = None
    corpus: str | None = None
    spans: bool = False
    eval_spans: int = 7
    eval_share: float = 0.1
    max_refused_share: float = 0.001

    def __post_init__(self) -> None:
        if (self.path is None) == (self.corpus is None):
            raise ValueError(
                "exactly one of path and corpus must be given, the other be null, got "
                f"{self.path!r} and {self.corpus!r}"
            )
        if self.spans and self.path is None:
            raise ValueError("spans needs path, the folder of the folders span-<number>")
        if self.eval_spans < 0:
            raise ValueError(f"eval_spans must be >= 0, got {self.eval_spans}")
        if self.corpus not in (None, SAMPLE, *CORPORA):
            raise ValueError(f"corpus must be one of {[SAMPLE, *CORPORA]}, got {self.corpus!r}")
        if not 0.001 <= self.eval_share <= 0.999:
            raise ValueError(f"eval_share must be in [0.001, 0.999], got {self.eval_share}")
        if not 0 <= self.max_refused_share <= 1:
            raise ValueError(f"max_refused_share must be in [0, 1], got {self.max_refused_share}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Says what a model must reach to be served.

    Args:
        max_perplexity: Blessed only at or below it.
        min_improvement: Blessed only if its perplexity is lower than that of the model in
            production by at least this share of it; 0 means not higher.
        max_forgetting: With spans, blessed only if its perplexity is higher than that of the model
            in production by at most this share of it, on the old spans' data and on the new one's.
            By default a little, as a model that goes on training on other text may give up a
            little of the old and be better on the whole all the same.
        stride: Tokens that the evaluation window moves; the context when not given. It is part
            of the exported model, and a model is compared only with one of the same stride.
    """

    max_perplexity: float
    min_improvement: float = 0.0
    max_forgetting: float = 0.01
    stride: int | None = None

    def __post_init__(self) -> None:
        if not self.max_perplexity >= 1:
            raise ValueError(f"max_perplexity must be >= 1, got {self.max_perplexity}")
        if not 0 <= self.min_improvement < 1:
            raise ValueError(f"min_improvement must be in [0, 1), got {self.min_improvement}")
        if not 0 <= self.max_forgetting < math.inf:
            raise ValueError(f"max_forgetting must be >= 0 and finite, got {self.max_forgetting}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingConfig(ServerOptions):
    """Describes the server, see `ServerOptions`, and how a model is made ready for one.

    Args:
        xla: Whether XLA compiles the exported model's generation, see `export_gpt2`.
        int8: Whether the exported model's weights are rounded to 8 bits, see `export_gpt2`. That is
            for calls of one prompt at a time. The same run with false exports floats, without
            training again.
        infra_validator: Whether TFX's InfraValidator loads each candidate in a stock TF Serving,
            too; that needs Docker.
    """

    xla: bool = False
    int8: bool = False
    infra_validator: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.xla and self.infra_validator:
            raise ValueError(
                "infra_validator must be false where xla is true: the server that it starts has "
                "no XLA, and loads no such model"
            )
        if self.int8 and not self.xla:
            raise ValueError("xla must be true where int8 is true, which is slow without")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Describes a run.

    Args:
        name: The pipeline's name; with a cache and a history of its own.
        model_name: The served model's name; the pipeline's when not given.
        start: Where training starts: `scratch`; `production`, from the newest version of
            `model_name` that was pushed, or from scratch as long as there is none; or a folder with
            weights: one that was exported here, Hugging Face's form, or OpenAI's checkpoint.
        output: The folder that all that is written lies under.
        cache: Whether unchanged components are taken from the cache.
        data, model, training, evaluation, beam, serving, kubeflow: The parts.
    """

    name: str
    data: DataConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    model: GPT2Config = dataclasses.field(default_factory=GPT2Config)
    beam: BeamConfig = dataclasses.field(default_factory=BeamConfig)
    serving: ServingConfig = dataclasses.field(default_factory=ServingConfig)
    kubeflow: KubeflowConfig = dataclasses.field(default_factory=KubeflowConfig)
    model_name: str = ""
    start: str = "scratch"
    output: str = "output"
    cache: bool = True

    def __post_init__(self) -> None:
        if not self.model_name:
            object.__setattr__(self, "model_name", self.name)
        for field in ("name", "model_name"):
            value = getattr(self, field)
            # They name folders, which "", "." and ".." do not.
            if not value[:1].isalnum() or not all(c.isalnum() or c in "-_." for c in value):
                raise ValueError(
                    f"{field} must be letters, digits, '-', '_', '.', with a letter or digit "
                    f"first, got {value!r}"
                )
        if self.model.vocab_size != VOCAB_SIZE:
            raise ValueError(
                f"model.vocab_size must be {VOCAB_SIZE}, the size of GPT-2's vocabulary, "
                f"got {self.model.vocab_size}"
            )
        if self.start == "production" and self.serving.int8:
            raise ValueError(
                "start must not be 'production' where serving.int8 is true: weights in 8 bits "
                "can't be trained further"
            )
        if self.kubeflow.training_job:
            self.kubeflow.training_job.check_training(self.training)
        if not 1 <= self.stride <= self.model.max_length:
            raise ValueError(
                f"evaluation.stride must be in [1, model.max_length={self.model.max_length}], "
                f"got {self.stride}"
            )

    @property
    def stride(self) -> int:
        """The evaluation's stride, in tokens."""
        if self.evaluation.stride is None:
            return self.model.max_length
        return self.evaluation.stride

    @property
    def data_folder(self) -> str:
        """The folder that the pipeline reads."""
        if self.data.corpus == SAMPLE:
            return str(resources.files("data") / "sample")
        return self.data.path or f"{self.output}/data/{self.data.corpus}"

    @property
    def refused_folder(self) -> str:
        """Where the last run's bad records and counts are."""
        return f"{self.output}/refused/{self.name}"

    @property
    def metadata_path(self) -> str:
        """SQLite's file with ML Metadata."""
        return f"{self.output}/metadata.db"

    @property
    def pipeline_root(self) -> str:
        """Where the components' outputs lie."""
        return f"{self.output}/pipeline/{self.name}"

    @property
    def serving_base(self) -> str:
        """The folder of the served model, which holds its versions."""
        return f"{self.output}/serving/{self.model_name}"

    @property
    def checkpoints(self) -> str:
        """The folder of the training runs' checkpoints and logs."""
        return f"{self.output}/checkpoints"
