"""A LlamaIndex query engine that answers with Fulcrum's dial.

Run: python examples/llama_index_engine.py
"""

from llama_index.core import Document, VectorStoreIndex

from app import factory, settings
from control.llama_index import QA_TEMPLATE, FulcrumLLM

chosen = settings.load()
documents = [
    Document(text="Quito is the capital of Peru."),
    Document(text="The ferry to Storholmen sails four times a day."),
]
index = VectorStoreIndex.from_documents(documents, embed_model=factory.embedding(chosen))
model = factory.language_model(chosen)
for alpha in (0.0, 1.0):
    llm = FulcrumLLM(model, alpha=alpha)
    engine = index.as_query_engine(llm=llm, text_qa_template=QA_TEMPLATE, similarity_top_k=1)
    response = engine.query("What is the capital of Peru?")
    print(f"alpha {alpha}: {response}")
    print(f"  read: {response.source_nodes[0].text}")
