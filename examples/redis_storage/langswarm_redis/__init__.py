"""Redis as a storage of langswarm-session."""

from langswarm_redis.storage import RedisSessionStorage

__all__ = ["RedisSessionStorage"]
