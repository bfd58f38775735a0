"""What the process that forks.py forks programs off imports: TensorFlow, as the service does."""

from model.runtime import tensorflow

tensorflow()
