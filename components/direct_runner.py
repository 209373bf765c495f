"""Beam on this machine, in Python processes alone."""

from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner


class DirectRunner(PipelineRunner):
    """Runs a pipeline on Beam's FnApiRunner, as Beam's own DirectRunner did before version 2.68.

    Since then that one first downloads Prism, a runner in Go, and runs the pipeline there, without
    the running mode, the number of workers and the kinds of errors that were asked for; only when
    the download fails, it does what this class does (apache/beam pull request 34612). The name is
    one that Beam knows as a local runner's (`StandardOptions.LOCAL_RUNNERS`).
    """

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> Any:
        """Runs the pipeline, whose worker processes get its options, and returns its result."""
        encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
        provision_info = fn_runner.ExtendedProvisionInfo(
            beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
        )
        runner = fn_runner.FnApiRunner(provision_info=provision_info)
        return runner.run_pipeline(pipeline, options)
