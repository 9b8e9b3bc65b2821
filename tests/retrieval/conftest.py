"""Shared fakes: an embedding without a model, documents on disk, minimal PDF files."""

import json
import os
import zlib
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from pypdf import PdfReader, PdfWriter

from retrieval.index import PassageIndex, open_index

os.environ["HF_HUB_OFFLINE"] = "1"


class BagOfWords(BaseEmbedding):
    """Counts hashed words: texts that share words are near, and no model is needed."""

    model_name: str = "bag-of-words"
    dimension: int = 8192  # so that no two words of a test fall together
    fail_after: int | None = None  # texts embedded before it breaks, as a killed process would

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * self.dimension
        for word in text.lower().replace(".", " ").replace("?", " ").split():
            vector[zlib.crc32(word.encode()) % self.dimension] += 1.0
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise KeyboardInterrupt
            self.fail_after -= 1
        return self._vector(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._vector(query)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def index(home: Path) -> PassageIndex:
    return open_index(home, None, BagOfWords())


@pytest.fixture
def json_lines(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes records to a .jsonl file."""

    def write(records: Iterable[dict[str, object]], name: str = "facts.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return write


def pdf(text: str, title: str | None = None, password: str | None = None) -> bytes:
    """Return a PDF of one page with one line of text (none if empty), optionally encrypted."""
    page = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(page), page),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"xref\n0 6\n0000000000 65535 f \n%btrailer\n<< /Size 6 /Root 1 0 R >>\n" % table
    data += b"startxref\n%d\n%%%%EOF\n" % data.index(b"xref\n0 6")
    if title is None and password is None:
        return data
    writer = PdfWriter(clone_from=PdfReader(BytesIO(data)))
    if title:
        writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(password, owner_password="owner", algorithm="RC4-128")
    buffer = BytesIO()
    writer.write(buffer)
    return buffer.getvalue()
