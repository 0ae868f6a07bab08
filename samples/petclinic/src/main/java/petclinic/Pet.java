package petclinic;

import org.springframework.data.annotation.Id;
import org.springframework.data.redis.core.RedisHash;

/** A row of the database: a hash in Redis. */
@RedisHash("pets")
public record Pet(@Id String name, String kind) {}
