"""The embedded gRPC server with TensorFlow Serving's API, and its client."""

# The longest message that server and client take, in bytes. gRPC's own limit is 4 MiB; 64 MiB
# hold 16 million int32 ids, far beyond any batch of prompts that fits a model.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
