"""What a spool in Redis changes, each change whole or not at all: Lua, which Redis runs alone.

Keys, all behind one prefix with a hash tag:
    pending        stream, one entry a frame without result; consumer group `feeders`
    frame:ID       hash: camera, kept_s, life_s, num_tries, entry (of the stream), size, record
    done:ID        hash: camera, number, ended_s, outcome, result
    results:CAMERA sorted set of ids by number        ends    sorted set of ids by their end
    gone:ID        hash: camera, outcome, ended_s; Redis forgets it
    asides         sorted set of ids by time          aside:ID  hash: camera, reason, aside_s, record
    before, last   hashes: the numbers of each camera idle    sorted set of cameras without results, by since when
    waiting        hash: pending frames of each camera
    usage          hash: bytes, pending, done, aside, newest
    mark           the last `ClockMark`, as JSON
"""

from __future__ import annotations

GROUP = "feeders"

# prefix, id, camera, kept_s, life_s, record, size, max_bytes -> {0 kept or known | 1 full, bytes used}
KEEP = """
local p, id, camera, size = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[7])
if redis.call('EXISTS', p..'frame:'..id, p..'done:'..id, p..'gone:'..id) > 0 then return {0, 0} end
local used = tonumber(redis.call('HGET', p..'usage', 'bytes') or '0')
if used + size > tonumber(ARGV[8]) then return {1, used} end
local entry = redis.call('XADD', p..'pending', '*', 'id', id)
redis.call('HSET', p..'frame:'..id, 'camera', camera, 'kept_s', ARGV[4], 'life_s', ARGV[5], 'num_tries', 0,
    'entry', entry, 'size', size, 'record', ARGV[6])
redis.call('HINCRBY', p..'usage', 'bytes', size)
redis.call('HINCRBY', p..'usage', 'pending', 1)
redis.call('HINCRBY', p..'waiting', camera, 1)
return {0, used}
"""

# prefix, id -> 1 counted | 0 not pending any more
TRIED = """
if redis.call('EXISTS', ARGV[1]..'frame:'..ARGV[2]) == 0 then return 0 end
redis.call('HINCRBY', ARGV[1]..'frame:'..ARGV[2], 'num_tries', 1)
return 1
"""

# prefix, id, outcome, result, now_s, aside reason or '' -> 1 written | 0 it had a result before
FINISH = """
local p, id, result, now, reason = ARGV[1], ARGV[2], ARGV[4], ARGV[5], ARGV[6]
local frame = p..'frame:'..id
local found = redis.call('HMGET', frame, 'camera', 'entry', 'size')
local camera = found[1]
if not camera then return 0 end
if reason ~= '' then
    redis.call('HSET', p..'aside:'..id, 'camera', camera, 'reason', reason, 'aside_s', now, 'size', found[3],
        'record', redis.call('HGET', frame, 'record') or '')
    redis.call('ZADD', p..'asides', now, id)
    redis.call('HINCRBY', p..'usage', 'aside', 1)
else
    redis.call('HINCRBY', p..'usage', 'bytes', -tonumber(found[3]))
end
redis.call('DEL', frame)
redis.call('XACK', p..'pending', 'feeders', found[2])
redis.call('XDEL', p..'pending', found[2])
redis.call('HINCRBY', p..'usage', 'pending', -1)
if redis.call('HINCRBY', p..'waiting', camera, -1) <= 0 then redis.call('HDEL', p..'waiting', camera) end
local newest = redis.call('HGET', p..'usage', 'newest')
redis.call('HSETNX', p..'before', camera, newest)
redis.call('HSETNX', p..'last', camera, newest)
redis.call('HINCRBY', p..'usage', 'newest', 1)
redis.call('HINCRBY', p..'last', camera, 1)
local number = redis.call('HGET', p..'last', camera)
redis.call('HSET', p..'done:'..id, 'camera', camera, 'number', number, 'ended_s', now, 'outcome', ARGV[3],
    'result', result)
redis.call('ZADD', p..'results:'..camera, number, id)
redis.call('ZADD', p..'ends', now, id)
redis.call('ZREM', p..'idle', camera)
redis.call('HINCRBY', p..'usage', 'done', 1)
redis.call('HINCRBY', p..'usage', 'bytes', #result)
return 1
"""

# prefix, now_s, ttl_s, how much longer what is gone is remembered, most at a time -> how many results were forgotten
FORGET = """
local p, now, ttl, longer = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local old = redis.call('ZRANGEBYSCORE', p..'ends', '-inf', string.format('%.6f', now - ttl), 'LIMIT', 0, ARGV[5])
for _, id in ipairs(old) do
    local found = redis.call('HMGET', p..'done:'..id, 'camera', 'outcome', 'ended_s', 'result')
    local camera = found[1]
    if camera then
        redis.call('HSET', p..'gone:'..id, 'camera', camera, 'outcome', found[2], 'ended_s', found[3])
        redis.call('EXPIRE', p..'gone:'..id, math.max(1, math.floor(ttl * longer)))
        redis.call('DEL', p..'done:'..id)
        redis.call('ZREM', p..'results:'..camera, id)
        redis.call('HINCRBY', p..'usage', 'done', -1)
        redis.call('HINCRBY', p..'usage', 'bytes', -#found[4])
        if redis.call('EXISTS', p..'results:'..camera) == 0 then redis.call('ZADD', p..'idle', ARGV[2], camera) end
    end
    redis.call('ZREM', p..'ends', id)
end
local idle = redis.call('ZRANGEBYSCORE', p..'idle', '-inf', string.format('%.6f', now - ttl * longer), 'LIMIT', 0,
    ARGV[5])
for _, camera in ipairs(idle) do
    redis.call('HDEL', p..'before', camera)
    redis.call('HDEL', p..'last', camera)
    redis.call('ZREM', p..'idle', camera)
end
return #old
"""

# prefix, camera, cursor, most, results that ended up to here count as gone -> before, last, newest, waiting, page
PAGE = """
local p, camera, most, dead = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local newest = redis.call('HGET', p..'usage', 'newest')
local page, from = {}, '('..ARGV[3]
while #page < most do
    local ids = redis.call('ZRANGEBYSCORE', p..'results:'..camera, from, '+inf', 'LIMIT', 0, most)
    if #ids == 0 then break end
    for _, id in ipairs(ids) do
        local found = redis.call('HMGET', p..'done:'..id, 'number', 'ended_s', 'result')
        from = '('..found[1]
        if tonumber(found[2]) > dead and #page < most then page[#page + 1] = {id, found[1], found[3]} end
    end
end
return {redis.call('HGET', p..'before', camera) or newest, redis.call('HGET', p..'last', camera) or newest, newest,
    redis.call('HGET', p..'waiting', camera) or '0', page}
"""

# prefix, id -> the record that was set aside, or false
DROP = """
local p, id = ARGV[1], ARGV[2]
local found = redis.call('HMGET', p..'aside:'..id, 'record', 'size')
if not found[1] then return false end
redis.call('DEL', p..'aside:'..id)
redis.call('ZREM', p..'asides', id)
redis.call('HINCRBY', p..'usage', 'aside', -1)
redis.call('HINCRBY', p..'usage', 'bytes', -tonumber(found[2]))
return found[1]
"""

# prefix, consumer, entries… -> those that are still this consumer's, and are so for another lease
RENEW = """
local mine = {}
for index = 3, #ARGV do
    local entry = ARGV[index]
    if #redis.call('XPENDING', ARGV[1]..'pending', 'feeders', entry, entry, 1, ARGV[2]) > 0 then
        redis.call('XCLAIM', ARGV[1]..'pending', 'feeders', ARGV[2], 0, entry, 'JUSTID')
        mine[#mine + 1] = entry
    end
end
return mine
"""
