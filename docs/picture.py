"""Draw docs/answer.svg, the README's picture, from real answers: `python docs/picture.py`."""

from pathlib import Path

from rich.console import Console

from app import factory, settings
from app.cli import terminal
from control.decoding.generate import Decoding

QUESTION = "What is the capital of Norway?"
HERE = Path(__file__).parent


def main() -> None:
    """Ask the same question at three settings of the dial and record the terminal."""
    console = Console(record=True, width=92, highlight=False, force_terminal=True)
    usual = settings.load()
    passages = factory.given_passages(usual, [HERE.parent / "data" / "demo.txt"], print)
    assistant = factory.assistant(usual)
    for alpha in (0.5, 0.75, 1.0):
        console.print(f'[dim]$ fulcrum ask "{QUESTION}" --context data/demo.txt --alpha {alpha}')
        answer = assistant.ask(QUESTION, Decoding(alpha=alpha), passages)
        for token in answer.tokens:
            terminal.token(console, token)
        console.print("\n" if alpha < 1 else "")
    terminal.summary(console, answer)
    console.save_svg(str(HERE / "answer.svg"), title="fulcrum")


if __name__ == "__main__":
    main()
