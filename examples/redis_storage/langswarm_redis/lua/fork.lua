-- Makes a session that begins with a copy of another's log. The server does nothing else meanwhile.
--
-- KEYS     the hash of the session to copy from, and that of the new one
-- ARGV     again, nonce, prefix, id to copy from, new id, last message number to copy, whose the
--          session to copy from must be, its number ('' for any), and the fields of the new session
--          as name and value
-- Returns  the new session's fields; 'none' and 'taken' if there is none to copy from, or the new
--          one is there already; 'made' if this is said again and was made before
local source, target, again, nonce, prefix = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local from, to, last = ARGV[4], ARGV[5], tonumber(ARGV[6])
local CHUNK = 500
local row = redis.call('HMGET', source, 'number', 'turn_token', 'turn_id', 'user_id')
if not row[1] or row[4] ~= ARGV[7] or not (ARGV[8] == '' or ARGV[8] == row[1]) then
  return 'none'
end
local taken = redis.call('HGET', target, 'recent')
if taken then
  return again == '1' and string.find(taken, nonce, 1, true) and 'made' or 'taken'
end
if row[2] then
  last = math.min(last, row[3] - 1)
end

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
redis.call('HSET', target, unpack(ARGV, 9))
redis.call('HSET', target, 'created_at', now, 'last_activity', now)
local count, turns, turn, seq = 0, 0, nil, 0
local function copy(message)
  local own, of, role, kind, size, at =
    string.match(message, '^(%d+) (%d+) (%d+) %-?%d+ (%a)(%d+) %-?%d+ ()')
  redis.call('ZADD', prefix .. 'm:' .. to, own, message)
  redis.call('HSET', prefix .. 'i:' .. to, kind .. string.sub(message, at, at + size - 1), own)
  if role == SYSTEM then
    redis.call('ZADD', prefix .. 'y:' .. to, own, own)
  end
  if redis.call('ZSCORE', prefix .. 'w:' .. from, own) then
    redis.call('ZADD', prefix .. 'w:' .. to, own, own)
  end
  if of ~= turn then
    turn, turns = of, turns + 1
    local note = redis.call('HMGET', prefix .. 't:' .. from, of .. ':status', of .. ':error', of .. ':finished')
    for place, name in ipairs({ ':status', ':error', ':finished' }) do
      if note[place] then
        redis.call('HSET', prefix .. 't:' .. to, of .. name, note[place])
      end
    end
    if redis.call('ZSCORE', prefix .. 'u:' .. from, of) then
      redis.call('ZADD', prefix .. 'u:' .. to, of, of)
    end
  end
  count, seq = count + 1, own
end
while true do
  local found = redis.call('ZRANGEBYSCORE', prefix .. 'm:' .. from, '(' .. seq, last, 'LIMIT', 0, CHUNK)
  for _, message in ipairs(found) do
    copy(message)
  end
  if #found < CHUNK then
    break
  end
end
redis.call('HSET', target, 'last_seq', seq, 'message_count', count, 'turn_count', turns)
redis.call('INCRBY', prefix .. 'messages', count)
redis.call('ZADD', prefix .. 'index', now, to)
redis.call('ZADD', prefix .. 'user:' .. redis.call('HGET', target, 'user_id'), now, to)
return redis.call('HMGET', target, FIELDS)
