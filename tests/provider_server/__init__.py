"""A stand-in for the vendors' servers, on the loopback, for the tests.

`server.world(**settings)` is an empty account of its own; `world.set(name=value)` changes a setting
later and `world.set(name=None)` takes it away. `world.requests(path)` is what was asked,
`world.reply(...)` scripts the model, `world.fail(...)` plans a fault, `world.state()` shows what the
server keeps: `state()["tokens"]` sums up the tokens given, read from a cache and written to one
(in that world, both vendors), `state()["refused"]` lists the refusals. Each rule cites where it is from.

Of Anthropic (`world.anthropic_url`):

- `account="new"` (default) or `"old"`: made before 2026-08-31, whose prefixes are checked only where a
  request sets `thinking.block_binding.prefix_mismatch_behavior` (but for Fable 5.2, on every account).
- `organization="org_1"`: whose thinking it is; another's is dropped without a word.
- The model's name says the rest (anthropic_table.py): `claude-opus-5-5`, `-sonnet-5-5`, `-haiku-5-5`,
  `-fable-5-1` and `-5-2` bind their thinking; `claude-test-1` and other made-up names bind nothing
  and take system messages, with "nosystem", "nothinking", "notools", "novision" in it they do not.
- `reasoning=True`: the model thinks wherever the request lets it. `max_input_tokens`, `max_request_bytes`.
- `anthropic="first-party"` (default), "bedrock", "vertex", "gateway", "unsigned": anthropic_profiles.py.
- `alternates=True`: two messages of one role in a row are refused in place of combined.
- A scripted reply may have `"container": {...}` and raw `"blocks"`; thinking in them is signed here unless
  its signature begins with "raw:".

- `world.vertex_url` is the same API by Google Cloud's paths (the SDK's `AsyncAnthropicVertex(base_url=...,
  access_token=world.key)`).

Of OpenAI (`world.openai_url`):

- `gpt-6.2-astra` and later versions drop reasoning behind a changed prefix, and tell so in
  `input_transformations` (openai_binding.py); `organization` as above. `reasoning=True`, `max_input_tokens`.
- `refuses_include=True`: a server that does not know `include`. `compat=True`: a server with chat alone,
  in OpenAI's own dialect. `lenient_partners`, `stored_reasoning="drop"`: openai_context.py.
- `chat="deepseek-v4"` and others: the dialects of chat_dialects.py (`DIALECTS`), which refuse what the
  real ones refuse and answer in their shapes. In any of them a script may be `{"message": {...}}`, a raw
  message, `{"deltas": [...]}`, its raw pieces, `{"error": {...}}`, an error inside a 200, or
  `{"finish": "error"}`.

`world.shares(path)` tells for each request how much of it the next one begins with, by parts (`1.0`: it
was only added to), cache marks, ids and options aside.
"""
