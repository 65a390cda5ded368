"""An HTTP service that fuses: the Open Inference Protocol (KServe v2) and image files, as one ASGI application.

`serving.application.make_application` returns it; `tcmoa serve` runs it under uvicorn or as a deployment of Ray Serve.
"""
