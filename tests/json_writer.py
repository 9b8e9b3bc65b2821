"""A model that writes the JSON that a test gives it, and all else as the model that it is."""

from dataclasses import dataclass

from control.engines.base import Generation, Token
from control.engines.transformers import LanguageModel


@dataclass(frozen=True)
class JsonWriter(LanguageModel):
    """Writes ``json``, at most ``longest`` characters of it, where a schema is given.

    What a token would complete is asked of the request, as every engine does.
    """

    json: str = "{}"
    longest: int = 10_000

    def generate(self, requests, on_token=None):
        if not any(request.json_schema for request in requests):
            return super().generate(requests, on_token)
        return [self._write(request) for request in requests]

    def _write(self, request):
        tokens = list[Token]()
        for character in self.json[: min(self.longest, request.max_new_tokens)]:
            before = "".join(token.text for token in tokens)
            if fact := request.withholds(before, character):
                return Generation(tokens, withheld=[fact], blocked=request.refuses(fact))
            tokens.append(Token(character))
        return Generation(tokens, finished=len(tokens) == len(self.json))


def json_writer(model, text, **changed):
    """Such a model on top of another one."""
    return JsonWriter(**{**vars(model), "json": text, **changed})
