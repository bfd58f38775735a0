-- Marks a generation as one that must not be staged or made current any more, before its keys are deleted.
--
-- KEYS[1]  meta  hash  see write.lua; `other:<generation>` is deleted by RedisStore.unlink_generation when the keys are gone.
-- ARGV[1]  the generation
--
-- Returns 1 marked, 0 it is the current one: nothing was done.

local found = redis.pcall('HGET', KEYS[1], 'generation')
if type(found) == 'table' then
  return 1 -- a meta of another type is no meta, and the next write replaces it
end
if found == ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'other:' .. ARGV[1], 'retired')
return 1
