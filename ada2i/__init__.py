"""Ada2I: balanced multimodal emotion recognition in conversations, as a distributed training pipeline."""

__version__ = "0.1.0"
