-- One change of one partition: compare and set its meta, write the rings in between. All or nothing.
--
-- KEYS[1]   meta    hash    fields of Meta; `stocks`, the size of the current set; other:<generation> for each generation
--                           with keys that is not current. Deleted by `downtick state reset` only.
-- KEYS[2]   stocks  set     of the generation that is written. Deleted by RedisStore.unlink_generation.
-- KEYS[3..] rings   string  of the same generation, one per run. Deleted by RedisStore.unlink_generation.
--
-- ARGV[1] ARGV[2]  generation and watermark that meta must have; both empty: there must be no meta
-- ARGV[3]          generation that is written
-- ARGV[4]          empty: meta moves to the fields below. A number: rings only, of a generation that is not current; the
--                  number rises from call to call, so that a call that was given up cannot arrive late and overwrite
-- ARGV[5]          bytes of a full ring
-- ARGV[6]          length of what comes before the stock in a ring's key
-- ARGV[7]          runs, 16 bytes each, little-endian u32: first byte in the ring, bytes, bytes that the ring must have
--                  now (REPLACE: any, of any type), 1 if the stock is new to the set
-- ARGV[8]          the runs' records, in order
-- ARGV[9..]        generation, its value, watermark, its value, and the other fields of the new meta in the same way
--
-- Returns 1 applied (or found applied already), 0 conflict, or, with nothing written, a list: 1 if the set has lost
-- stocks, else 0, then the positions (from 0) of the rings that are missing, short, or no string.

local REPLACE = 4294967295
local ITEMS = 1000 -- that unpack() may put on the stack at a time; it has room for about 8,000
local call, try, sub, decode = redis.call, redis.pcall, string.sub, struct.unpack

local meta, stocks = KEYS[1], KEYS[2]
local generation, fence = ARGV[3], ARGV[4]
local full, prefix = tonumber(ARGV[5]), tonumber(ARGV[6]) + 1
local runs, records = ARGV[7], ARGV[8]
local count = #KEYS - 2

local function wrong_type(reply)
  if type(reply) ~= 'table' or not reply.err then
    return false
  end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    return true
  end
  error(reply.err) -- a server that is not well: the caller reads the code in the message
end

-- 1. Is the partition still as the caller knows it? A meta of another type, or without its two fields, is no meta.
local found = try('HMGET', meta, 'generation', 'watermark', 'stocks', 'other:' .. generation)
local foreign = wrong_type(found)
local was, watermark, recorded, other = '', '', false, false
if not foreign then
  if found[1] and found[2] then
    was, watermark, recorded = found[1], found[2], tonumber(found[3])
  end
  other = found[4]
end
if was ~= ARGV[1] or watermark ~= ARGV[2] then
  if fence == '' and was == ARGV[10] and watermark == ARGV[12] then
    return 1
  end
  return 0
end
if other == 'retired' or (fence ~= '' and (was == generation or (other and tonumber(other) >= tonumber(fence)))) then
  return 0
end

-- 2. Are set and rings as the caller knows them?
local at, bytes, expected, new = {}, {}, {}, {}
local broken, known, from = { 0 }, false, 1
for i = 1, count do
  at[i], bytes[i], expected[i], new[i], from = decode('<I4I4I4I4', runs, from)
  known = known or new[i] == 0
  if expected[i] ~= REPLACE then
    local length = try('STRLEN', KEYS[i + 2])
    if length ~= expected[i] then
      wrong_type(length)
      broken[#broken + 1] = i - 1
    end
  end
end
local size = try('SCARD', stocks)
if wrong_type(size) or (known and size == 0) or (was == generation and recorded and size ~= recorded) then
  broken[1] = 1
end
if broken[1] == 1 or #broken > 1 then
  return broken
end

-- 3. Rings, then the set, then meta. Only the first write can be refused (memory, replicas, disk), so none is half done.
from = 1
local added = {}
for i = 1, count do
  local key, first, length = KEYS[i + 2], at[i], bytes[i]
  local room = full - first
  local last = from + length - 1
  if expected[i] == REPLACE then
    if length <= room then
      call('SET', key, sub(records, from, last))
    else
      call('SET', key, sub(records, from + room, last) .. sub(records, from, from + room - 1))
    end
  elseif length <= room then
    call('SETRANGE', key, first, sub(records, from, last))
  else
    call('SETRANGE', key, first, sub(records, from, from + room - 1))
    call('SETRANGE', key, 0, sub(records, from + room, last))
  end
  from = last + 1
  if new[i] == 1 then
    added[#added + 1] = sub(key, prefix)
  end
end
for i = 1, #added, ITEMS do
  size = size + call('SADD', stocks, unpack(added, i, math.min(i + ITEMS - 1, #added)))
end
if foreign then
  call('DEL', meta)
end
if fence ~= '' then
  call('HSET', meta, 'other:' .. generation, fence)
  return 1
end
call('HSET', meta, 'stocks', size, unpack(ARGV, 9))
if was ~= '' and was ~= generation then
  call('HSET', meta, 'other:' .. was, 'retired')
end
if other then
  call('HDEL', meta, 'other:' .. generation)
end
return 1
