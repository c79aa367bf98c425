"""Types of requests and responses, as in ``litserve.schema``."""
