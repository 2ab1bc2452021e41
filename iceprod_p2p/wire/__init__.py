"""What crosses between processes: gRPC channels with mutual TLS, errors, messages and their translation."""
