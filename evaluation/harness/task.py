"""How a conflict is asked: with its passage in the prompt, or beside it in ``documents``."""

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask


class Passage(dict[str, str]):
    """A passage of Fulcrum's API.

    The harness asks requests of the same options together, with the options of the first; it
    tells them by their hash, which a plain ``dict`` lacks.
    """

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


class ConflictTask(ConfigurableTask):
    """A task of the harness whose questions are those of ``utils.question``."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={name: given for name, given in config.items() if name != "class"})

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> Instance:
        """The request of one question.

        Args:
            doc: The question.
            ctx: The prompt, without or with the model's chat template.
            kwargs: ``apply_chat_template``, and what the harness knows of the request.
        """
        if not doc["documents"] and not kwargs.get("apply_chat_template"):
            before = ctx.removesuffix(doc["text"])
            ctx = f"{before}\n\n{doc['plain']}" if before else doc["plain"]
        request = super().construct_requests(doc, ctx, **kwargs)
        if doc["documents"]:
            prompt, options = request.arguments
            passages = [Passage(text=text) for text in doc["passages"]]
            request.arguments = (prompt, {**options, "documents": passages})
        return request
