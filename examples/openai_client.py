"""OpenAI's client against Fulcrum: a server of its own, or one at a given address.

Run: python examples/openai_client.py [http://127.0.0.1:7860 [KEY]]
"""

import sys
from contextlib import nullcontext
from tempfile import TemporaryDirectory

from openai import OpenAI

from app import settings
from app.server.site import run_server

address, key = (*sys.argv[1:], *("", "none")[len(sys.argv) - 1 :])
passage = {"title": "Norway", "text": "Cairo is the capital of Norway.", "trust": 0.5}
question = {"role": "user", "content": "What is the capital of Norway?"}

with (
    TemporaryDirectory() as home,
    nullcontext(address) if address else run_server(settings.load(home=home)) as url,
):
    client = OpenAI(base_url=f"{url}/v1", api_key=key)
    for alpha in (0.0, 1.0):
        extra = {"alpha": alpha, "documents": [passage]}
        answer = client.chat.completions.create(
            model="fulcrum", messages=[question], extra_body=extra
        )
        print(f"alpha {alpha}: {answer.choices[0].message.content}")
        print(f"  {(answer.fulcrum['verdict'] or {}).get('follows', 'no conflict')}")
