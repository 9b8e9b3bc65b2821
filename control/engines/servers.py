"""Opens the server that a model is behind and finds out its kind.

`connect` asks the server which model it has and tries one request for each capability; nothing is
guessed from a name. There are three kinds, over `control.engines.openai_server`:

- `control.engines.llama_server`: ``llama-server``, which also runs embedded.
- `control.engines.completion_server`: vLLM, and SGLang where it offers the same.
- `control.engines.chat_server`: any other with ``/v1/chat/completions``, such as Ollama or a hosted
  endpoint.
"""

from typing import Any

import openai

from control.engines import chat_server, completion_server, llama_server
from control.engines.endpoint import Server
from control.engines.openai_server import Http
from foundation import model_server
from foundation.errors import ModelError


async def connect(url: str, key: str | None = None, patient: bool = False) -> Server:
    """Open a model behind a server.

    Args:
        url: Of the API, up to ``/v1``; ``#name`` after it chooses one of several models.
        key: The server's, if it asks for one.
        patient: Wait without end for a server that is silent.

    Raises:
        ModelError: It cannot be reached, refuses the key, or has no such model.
    """
    address, _, wanted = url.partition("#")
    http = Http(address, key, patient)
    try:
        told = await _models(http)
        models = {str(each["id"]): each for each in told["data"]}
        model = models[model_server.chosen(http.option, list(models), wanted)]
        return (
            await llama_server.opened(http, model)
            or await completion_server.opened(http, model)
            or await chat_server.opened(http, model)
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        await http.client.close()
        raise http.failure(
            f"answers, but not as an OpenAI-compatible server ({error!r}); give the URL up to "
            f"/v1, as in {model_server.EXAMPLE}"
        ) from error
    except BaseException:
        await http.client.close()
        raise


async def _models(http: Http) -> Any:
    """What the server tells of its models."""
    try:
        return await http.call(lambda: http.client.get("/models", cast_to=object))
    except ModelError as error:
        if isinstance(error.__cause__, openai.NotFoundError):
            raise http.failure(
                f"the server has no /models there; give its URL up to /v1, as in "
                f"{model_server.EXAMPLE}"
            ) from error
        raise
