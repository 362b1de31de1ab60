"""tiktoken's rank files and split patterns, shipped as data so that nothing is downloaded at run time.

See LICENSE beside them for their origin and licence. `gateway.openai.tokenizer` reads and checks them.
"""
