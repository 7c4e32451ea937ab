"""What the three programs agree on: formats, the judge's prompt, the client, the command line.

It promises that a file it wrote is complete, that a file it reads is what it claims to be, and that importing it loads
no engine (no torch, transformers, vllm, ray or faiss). It does not judge, retrieve or train.

`import unijudge` loads nothing else; take names from the module that defines them, as in
`from unijudge.client.client import JudgeClient`.
"""
