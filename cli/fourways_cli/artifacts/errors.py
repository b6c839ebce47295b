"""What is raised while a model is pushed."""


class PushFailed(RuntimeError):
    """A model was not pushed; the text is for people."""


class NotEdited(ValueError):
    """A manifest was not changed; the text says why."""
