"""Fine-tuning a language model to price products: examples in, a model of one's own out."""

from shared.tuning.jsonl import prepare, validate
from shared.tuning.local_tuner import LocalTuner, local_tuned_pricer
from shared.tuning.openai_tuner import AsTaught, OpenAITuner, tuned_connection
from shared.tuning.protocol import Step, Tuner, TunerError

__all__ = [
    "AsTaught",
    "LocalTuner",
    "OpenAITuner",
    "Step",
    "Tuner",
    "TunerError",
    "local_tuned_pricer",
    "prepare",
    "tuned_connection",
    "validate",
]
